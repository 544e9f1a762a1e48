package secp

// Default returns the engine that verifies where nobody chose one.
func Default() Engine { return Native{} }
