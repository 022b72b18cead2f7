package console

import (
	"bytes"
	"io"
)

// lastLine passes on what is written to it, and keeps the last line.
type lastLine struct {
	out io.Writer
	// line is the last that has ended, rest what came behind its end.
	line, rest []byte
}

// Write passes p on.
func (l *lastLine) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	if end := bytes.LastIndexByte(l.rest, '\n'); end >= 0 {
		whole := l.rest[:end]
		l.line = bytes.Clone(whole[bytes.LastIndexByte(whole, '\n')+1:])
		l.rest = bytes.Clone(l.rest[end+1:])
	}
	return l.out.Write(p)
}
