package api

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"replicator/config"
	"replicator/fault"
)

// gate lets the configured account in. Without one the configuration allows loopback addresses only, and the gate lets in
// requests that were sent to such a name: a page whose own name was pointed at 127.0.0.1 is refused.
type gate struct {
	username string
	hash     []byte
	salt     []byte        // of the digests below; known to this process alone
	slow     chan struct{} // one bcrypt comparison at a time: guessing gets one core at most
	accepted atomic.Pointer[[sha256.Size]byte]
	failures atomic.Int64
}

func newGate(cfg config.HTTP) *gate {
	g := &gate{
		username: cfg.Username, hash: []byte(cfg.PasswordHash.Reveal()),
		salt: make([]byte, sha256.Size), slow: make(chan struct{}, 1),
	}
	_, _ = rand.Read(g.salt) // never fails, says its documentation
	return g
}

func (g *gate) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(g.hash) == 0 {
			if !toLoopback(r.Host) {
				refuse(w, http.StatusMisdirectedRequest, Problem{
					Class: string(fault.Configuration), Message: "the host " + r.Host + " is not served without a password",
					Remedy: "ask for localhost or 127.0.0.1, or set http.username and http.password_hash",
				})
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		username, password, given := r.BasicAuth()
		if given && g.admits(r, username, password) {
			next.ServeHTTP(w, r)
			return
		}
		if given {
			g.failures.Add(1)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="replicator", charset="UTF-8"`)
		refuse(w, http.StatusUnauthorized, Problem{
			Class: string(fault.Login), Message: "the account of http.username is asked for",
			Remedy: "send its user name and password as HTTP basic authentication",
		})
	})
}

// admits compares with the hash, or with what the hash has accepted before: bcrypt is slow by design, and a scrape every
// few seconds must not pay for it each time. Its time does not depend on which of the two values is wrong.
func (g *gate) admits(r *http.Request, username, password string) bool {
	digest := g.digest(username, password)
	if known := g.accepted.Load(); known != nil && hmac.Equal(known[:], digest[:]) {
		return true
	}
	select {
	case g.slow <- struct{}{}:
		defer func() { <-g.slow }()
	case <-r.Context().Done():
		return false
	}
	rightPassword := bcrypt.CompareHashAndPassword(g.hash, []byte(password)) == nil
	rightUser := subtle.ConstantTimeCompare([]byte(username), []byte(g.username)) == 1
	if !rightPassword || !rightUser {
		return false
	}
	g.accepted.Store(&digest)
	return true
}

func (g *gate) digest(username, password string) [sha256.Size]byte {
	mac := hmac.New(sha256.New, g.salt)
	mac.Write([]byte(username))
	mac.Write([]byte{0}) // a user name with a zero byte is never the configured one
	mac.Write([]byte(password))
	return [sha256.Size]byte(mac.Sum(nil))
}

func toLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
