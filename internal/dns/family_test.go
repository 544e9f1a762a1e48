package dns

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// plain hides that a Zone can be asked for A records alone.
type plain struct{ Resolver }

func TestV4(t *testing.T) {
	z := MustZone(map[string][]string{
		"2.0.0.127.list.test": {"A 127.0.0.2", "A 127.0.0.4", "AAAA 2001:db8::1"},
		"six.list.test":       {"AAAA 2001:db8::1"},
	})
	z.Fail("broken.list.test", ServFail)
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"2.0.0.127.list.test", "[127.0.0.2 127.0.0.4]", nil},
		{"six.list.test", "[]", nil},     // no record of the type
		{"missing.list.test", "[]", nil}, // no such name
		{"broken.list.test", "[]", ErrTemporary},
	} {
		for _, r := range []Resolver{z, plain{z}} {
			got, err := V4(context.Background(), r, c.name)
			if fmt.Sprint(got) != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s by %T: %v, %v", c.name, r, got, err)
			}
		}
	}
	six, err := V6(context.Background(), z, "six.list.test")
	if fmt.Sprint(six) != "[2001:db8::1]" || err != nil {
		t.Errorf("AAAA: %v, %v", six, err)
	}
	before := z.Asked("", "AAAA")
	if _, err := V4(context.Background(), z, "2.0.0.127.list.test"); err != nil {
		t.Fatal(err)
	}
	if n := z.Asked("", "AAAA") - before; n != 0 {
		t.Errorf("AAAA was asked for %d times", n)
	}
}
