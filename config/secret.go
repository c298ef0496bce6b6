package config

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

const redacted = "[redacted]"

// Secret is a text that no log, error or document shows. Reveal gives it to those who need it.
type Secret struct{ text string }

// NewSecret hides a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.text == "" }

// String, GoString, MarshalText and MarshalYAML hide the text from fmt, zap, JSON and YAML.
func (s Secret) String() string { return redacted }

// GoString hides the text from %#v.
func (s Secret) GoString() string { return redacted }

// MarshalText hides the text from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON hides the text from JSON.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalYAML hides the text from YAML.
func (s Secret) MarshalYAML() (any, error) { return redacted, nil }

// Account is a user of a server. Its password is given directly or in a file.
type Account struct {
	User         string `yaml:"user"`
	Secret       Secret `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
}

// Password returns the account's password. A password file is read at every call, so that a rotated password is met
// without a restart; one line end at its end is not part of the password.
func (a *Account) Password() (string, error) {
	if a.PasswordFile == "" {
		return a.Secret.text, nil
	}
	raw, err := os.ReadFile(a.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read password file: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	if strings.ContainsAny(text, "\n\r\x00") {
		return "", fmt.Errorf("read password file %s: %w", a.PasswordFile, errManyLines)
	}
	return text, nil
}

var errManyLines = errors.New("it has more than one line")
