package queue_test

import (
	"encoding/json"
	"testing"

	"github.com/tallypost/tallypost/mail/queue"
)

// events returns everything the ledger has in a store, in order.
func events(t testing.TB, store queue.Store) (list []map[string]any) {
	t.Helper()
	err := queue.JournalSection(store).Scan([]byte("e"), nil, func(_, value []byte) bool {
		var e map[string]any
		if err := json.Unmarshal(value, &e); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
