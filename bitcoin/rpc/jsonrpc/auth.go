package jsonrpc

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
)

// CookieUser is the name that goes with the password in a cookie file.
const CookieUser = "__cookie__"

// Credential is a name with a salted hash of its password.
type Credential struct {
	User, Salt, Hash string
}

// NewCredential returns the credential of a name and password.
func NewCredential(user, password string) Credential {
	var salt [16]byte
	rand.Read(salt[:])
	c := Credential{User: user, Salt: hex.EncodeToString(salt[:])}
	c.Hash = c.hash(password)
	return c
}

func (c *Credential) hash(password string) string {
	mac := hmac.New(sha256.New, []byte(c.Salt))
	mac.Write([]byte(password))
	return hex.EncodeToString(mac.Sum(nil))
}

// ParseCredential reads the argument of -rpcauth, USERNAME:SALT$HASH.
func ParseCredential(s string) (c Credential, err error) {
	user, rest, ok := strings.Cut(s, ":")
	salt, hash, ok2 := strings.Cut(rest, "$")
	if !ok || !ok2 || strings.ContainsAny(rest, ":") || strings.Contains(hash, "$") {
		return c, errors.New("Invalid -rpcauth argument.")
	}
	return Credential{User: user, Salt: salt, Hash: hash}, nil
}

// WriteCookie makes a password, writes it with CookieUser into a file that only those may read whom perm
// lets, and returns its credential. The file is there at once, whole.
func WriteCookie(file string, perm os.FileMode) (Credential, error) {
	var secret [32]byte
	rand.Read(secret[:])
	password := hex.EncodeToString(secret[:])
	tmp := file + ".tmp"
	if st, err := os.Lstat(tmp); err == nil && st.IsDir() {
		return Credential{}, fmt.Errorf("%s is a directory", tmp)
	}
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Credential{}, err
	}
	if err := os.WriteFile(tmp, []byte(CookieUser+":"+password), 0o600); err != nil {
		return Credential{}, err
	}
	if err := os.Chmod(tmp, perm); err != nil {
		return Credential{}, err
	}
	return NewCredential(CookieUser, password), os.Rename(tmp, file)
}

// CookiePerms returns the permissions that -rpccookieperms names.
func CookiePerms(s string) (os.FileMode, error) {
	switch s {
	case "owner":
		return 0o600, nil
	case "group":
		return 0o640, nil
	case "all":
		return 0o644, nil
	}
	return 0, fmt.Errorf("Invalid -rpccookieperms=%s; must be one of 'owner', 'group', or 'all'.", s)
}

// ParseWhitelist reads the values of -rpcwhitelist: which methods a user may call. A user that is named
// twice may call what both times name.
func ParseWhitelist(values []string) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for _, v := range values {
		user, list, given := strings.Cut(v, ":")
		before, again := out[user]
		if !given {
			if !again {
				out[user] = map[string]bool{}
			}
			continue
		}
		now := map[string]bool{}
		for _, m := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
			if !again || before[m] {
				now[m] = true
			}
		}
		out[user] = now
	}
	return out
}

// authorized returns the user of an Authorization header.
func (s *Server) authorized(header string) (user string, ok bool) {
	encoded, ok := strings.CutPrefix(header, "Basic ")
	if !ok {
		return "", false
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return "", false
	}
	user, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return "", false
	}
	for i := range s.cfg.Credentials {
		c := &s.cfg.Credentials[i]
		if subtle.ConstantTimeCompare([]byte(c.User), []byte(user)) == 1 &&
			subtle.ConstantTimeCompare([]byte(c.hash(password)), []byte(c.Hash)) == 1 {
			return user, true
		}
	}
	return user, false
}
