// Package process answers: how does a child process start, end, and come back?
//
// A Process is one run of a program with its output in a log file. A Supervisor
// keeps a program running as a kubelet keeps a container running: once it has
// been ready, it is started again whenever it ends.
//
//	          ready                       ends
//	starting ───────▶ running ──────────────────────▶ waiting (0.2s … 10s)
//	    │ ends            ▲           starts again         │
//	    ▼                 └────────────────────────────────┘
//	 the run fails
package process
