// Package receiver answers: what was called, and with what?
//
// It is a small HTTP server to point a callback to while trying things out:
//
//	any other path   a callback: it is kept, and answered as it was set
//	GET /received    the calls that are kept, oldest first, as a JSON list
//	DELETE /received forgets them
//	PUT /answer      {"status":500} or {"status":200,"delay":"2s"} sets the answer
//	GET /answer      what is answered now
package receiver
