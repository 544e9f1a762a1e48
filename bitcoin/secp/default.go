package secp

// Default returns the engine that verifies where nobody chose one: decred's, which others have run for
// years. Native is faster; docs/decisions/0004-signature-engine.md says what it has still to prove.
func Default() Engine { return Decred{} }
