package testkit

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// scramIterations is the least that RFC 7677, section 4, allows.
const scramIterations = 4096

// scramServer is the mechanism SCRAM-SHA-256 (RFC 5802, RFC 7677), without
// channel binding.
type scramServer struct {
	// password returns a user's; check notes who has logged in.
	password func() string
	check    func(username, password string) error

	step                 int
	username, nonce      string
	firstBare, challenge string
}

// Next implements sasl.Server.
func (s *scramServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return nil, false, nil // the client begins
	}
	s.step++
	switch s.step {
	case 1:
		return s.first(string(response))
	case 2:
		return s.final(string(response))
	}
	return nil, true, nil
}

// first reads n,,n=USER,r=NONCE and answers with salt and nonce.
func (s *scramServer) first(message string) (challenge []byte, done bool, err error) {
	bare, ok := strings.CutPrefix(message, "n,,")
	name, nonce, found := strings.Cut(bare, ",r=")
	if !ok || !found || !strings.HasPrefix(name, "n=") {
		return nil, true, errors.New("no first message of SCRAM")
	}
	s.username, s.firstBare = strings.TrimPrefix(name, "n="), bare
	s.nonce = nonce + rand.Text()
	s.challenge = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString([]byte(s.nonce[:8])), scramIterations)
	return []byte(s.challenge), false, nil
}

// final reads c=biws,r=NONCE,p=PROOF, and shows that it knows the password too.
func (s *scramServer) final(message string) (challenge []byte, done bool, err error) {
	bare, proofText, found := strings.Cut(message, ",p=")
	proof, err := base64.StdEncoding.DecodeString(proofText)
	if !found || err != nil || bare != "c=biws,r="+s.nonce {
		return nil, true, errors.New("no final message of SCRAM")
	}
	salted, err := pbkdf2.Key(sha256.New, s.password(), []byte(s.nonce[:8]), scramIterations, sha256.Size)
	if err != nil {
		return nil, true, err
	}
	signed := strings.Join([]string{s.firstBare, s.challenge, bare}, ",")
	clientKey := mac(salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	wanted := mac(storedKey[:], signed)
	for i := range wanted {
		wanted[i] ^= clientKey[i]
	}
	proven := s.password()
	if !hmac.Equal(wanted, proof) {
		proven = ""
	}
	if err := s.check(s.username, proven); err != nil {
		return nil, true, err
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(mac(mac(salted, "Server Key"), signed))), false, nil
}

func mac(key []byte, text string) []byte {
	hash := hmac.New(sha256.New, key)
	hash.Write([]byte(text)) // never fails
	return hash.Sum(nil)
}
