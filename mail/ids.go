package mail

// Skip makes every ID that follows greater than id: for a server that finds, when it starts, IDs in its store
// that a clock which was ahead has left behind.
func (s *IDs) Skip(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, id)
}
