package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// upload imports lines into the attacker's list until the context ends, and begins again
// whenever ingress ends the import. line returns the n-th line and how long to wait behind it.
func (a *attacker) upload(ctx context.Context, line func(n int) (string, time.Duration)) {
	for n := 0; ctx.Err() == nil; {
		reader, writer := io.Pipe()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.importURL(0), reader)
		if err != nil {
			return
		}
		request.Header.Set("Content-Type", linesType)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for ; ctx.Err() == nil; n++ {
				text, wait := line(n)
				if _, err := io.WriteString(writer, text); err != nil || !pause(ctx, wait) {
					break
				}
			}
			_ = writer.CloseWithError(context.Canceled)
		}()
		if response, err := http.DefaultClient.Do(request); err == nil {
			_, _ = io.Copy(io.Discard, response.Body) // refused or ended: the next one begins
			_ = response.Body.Close()
		}
		_ = reader.Close()
		<-stopped
		pause(ctx, 100*time.Millisecond)
	}
}

// hold opens a connection with a small receive buffer, sends text, and reads nothing until the
// context ends.
func (a *attacker) hold(ctx context.Context, text string) error {
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(a.ingress, "http://"))
	if err != nil {
		return err
	}
	_ = connection.(*net.TCPConn).SetReadBuffer(2048)
	a.running.Go(func() {
		<-ctx.Done()
		_ = connection.Close()
	})
	_, err = io.WriteString(connection, text)
	return err
}

// pause waits, and reports whether the context still lasts.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
