package smtp

import (
	"crypto/pbkdf2"
	"crypto/sha256"
)

// keysOf returns what a server keeps of a password.
func keysOf(password string) ScramKeys {
	salt := []byte("salt and pepper!")
	salted, err := pbkdf2.Key(sha256.New, password, salt, 4096, sha256.Size)
	if err != nil {
		panic(err)
	}
	stored := sha256.Sum256(sum(salted, "Client Key"))
	return ScramKeys{Account: "account", Salt: salt, Iterations: 4096, StoredKey: stored[:],
		ServerKey: sum(salted, "Server Key")}
}
