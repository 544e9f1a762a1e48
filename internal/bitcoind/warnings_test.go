package bitcoind

import "testing"

// TestAlertCommand: of a warning only what no shell understands reaches one, in quotes.
func TestAlertCommand(t *testing.T) {
	for _, row := range []struct{ command, text, want string }{
		{"echo %s >> alert.txt", "Unknown new rules activated (versionbit 27)",
			"echo 'Unknown new rules activated (versionbit 27)' >> alert.txt"},
		{"a %s b %s", "it's $(rm -rf) `x` \"y\" \\ & | ; > !", "a 'its (rm -rf) x y    ;  ' b 'its (rm -rf) x y    ;  '"},
		{"true", "anything", "true"},
		{"echo %s", forkWarning, "echo '" + forkWarning + "'"},
	} {
		if got := alertCommand(row.command, row.text); got != row.want {
			t.Errorf("alertCommand(%q, %q) = %q, want %q", row.command, row.text, got, row.want)
		}
	}
}
