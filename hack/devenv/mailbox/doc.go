// Package mailbox answers: which mail was sent, and what is its link?
//
// It is a small SMTP server to send opt-in mails to while trying things out. It
// takes every mail, delivers none, and tells of each in one line.
package mailbox
