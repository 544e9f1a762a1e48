package queue

// The first octet of a key says whose it is.
const (
	spaceJournal = 'j' // the Journal's section
)
