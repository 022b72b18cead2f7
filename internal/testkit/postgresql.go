package testkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNoPostgreSQL tells that the programs of a PostgreSQL server are not there.
var ErrNoPostgreSQL = errors.New("no PostgreSQL server is installed")

const (
	// postgresUser is the superuser of test servers, and postgresPassword its password.
	postgresUser     = "postbus"
	postgresPassword = "correct-horse-battery"
	// postgresTimeout bounds the start of a server.
	postgresTimeout = time.Minute
)

// PostgreSQL is a running server of its own, that listens on the loopback
// interface. It is used by the tests of one package.
type PostgreSQL struct {
	// Port is where it listens; it stays the same over restarts.
	Port int
	// Durable has it flush to the disk what it commits, from its next Start on. Tests
	// do without, benchmarks don't.
	Durable bool

	bin, folder string
	account     *syscall.Credential
	running     bool
	// guard ends the server when leash, its input, ends: the test may be killed.
	guard     *exec.Cmd
	leash     io.Closer
	databases atomic.Int64
}

// RunWithPostgreSQL is the whole of a TestMain: it starts a server, hands it to
// use, runs the package's tests, stops it, and returns the exit code. Without the
// programs of one use gets nil, so tests skip; in CI that is an error.
func RunWithPostgreSQL(m *testing.M, use func(*PostgreSQL)) int {
	server, err := StartPostgreSQL()
	switch {
	case errors.Is(err, ErrNoPostgreSQL) && os.Getenv("CI") != "true":
		return m.Run()
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(server)
	code := m.Run()
	if err := server.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// NewPostgreSQL starts a server for one test. Without the programs of one the test
// is skipped, but in CI it fails.
func NewPostgreSQL(t testing.TB) *PostgreSQL {
	t.Helper()
	server, err := StartPostgreSQL()
	if errors.Is(err, ErrNoPostgreSQL) && os.Getenv("CI") != "true" {
		t.Skip("SKIPPED, so nothing is tested over PostgreSQL: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Remove(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// StartPostgreSQL starts a server of the newest version that is installed, with an
// empty cluster. The error wraps ErrNoPostgreSQL when none is. It trusts the
// operating system to write what it was given, so it is no benchmark of a disk.
func StartPostgreSQL() (*PostgreSQL, error) {
	p, err := newPostgreSQL()
	if err != nil {
		return nil, err
	}
	secret := filepath.Join(p.folder, "password")
	err = errors.Join(
		os.WriteFile(secret, []byte(postgresPassword), 0o600), p.own(secret),
		p.command("initdb", "--pgdata", p.data(), "--username", postgresUser, "--pwfile", secret,
			"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
	)
	if err == nil {
		err = errors.Join(p.Start(), p.leashServer())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), p.Remove())
	}
	return p, nil
}

// newPostgreSQL finds the programs and makes room for a cluster.
func newPostgreSQL() (p *PostgreSQL, err error) {
	p = &PostgreSQL{}
	if p.bin, err = postgresPrograms(); err != nil {
		return nil, err
	}
	if p.account, err = postgresAccount(); err != nil {
		return nil, err
	}
	if p.Port, err = FreePort(); err != nil {
		return nil, err
	}
	if p.folder, err = os.MkdirTemp("", "postbus-postgresql-"); err != nil {
		return nil, fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	err = p.own(p.folder)
	return p, err
}

// postgresPrograms returns the folder of the programs, of the newest version where
// Debian has several.
func postgresPrograms() (string, error) {
	var folders []string
	if program, err := exec.LookPath("initdb"); err == nil {
		if program, err = filepath.EvalSymlinks(program); err == nil { // the other programs are beside it
			folders = append(folders, filepath.Dir(program))
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is good
	slices.SortFunc(found, func(a, b string) int { return postgresVersion(b) - postgresVersion(a) })
	for _, program := range found {
		folders = append(folders, filepath.Dir(program))
	}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "postgres")); err == nil {
			return folder, nil
		}
	}
	return "", fmt.Errorf("%w: initdb is neither in the PATH nor in /usr/lib/postgresql", ErrNoPostgreSQL)
}

// postgresVersion returns the version in the path of Debian's programs.
func postgresVersion(program string) int {
	version, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(program)))) // 0 for what is none
	return version
}

// postgresAccount returns whom the server runs as when the test is root, which
// PostgreSQL refuses.
func postgresAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nobody else
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("look for whom PostgreSQL can run as: %w", err)
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(uidErr, gidErr)
}

// FreePort returns a port of the loopback interface that nobody listens on.
func FreePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// own gives a file to whom the server runs as.
func (p *PostgreSQL) own(path string) error {
	if p.account == nil {
		return nil
	}
	return os.Chown(path, int(p.account.Uid), int(p.account.Gid))
}

func (p *PostgreSQL) data() string { return filepath.Join(p.folder, "data") }

// command runs one of PostgreSQL's programs.
func (p *PostgreSQL) command(program string, arguments ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), postgresTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, filepath.Join(p.bin, program), arguments...)
	command.Dir = p.folder
	command.Env = append(os.Environ(), "PGPASSWORD="+postgresPassword)
	command.SysProcAttr = &syscall.SysProcAttr{Credential: p.account}
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", program, err, output)
	}
	return nil
}

// settings are the server's, beside its port.
func (p *PostgreSQL) settings() string {
	flushing := "off"
	if p.Durable {
		flushing = "on"
	}
	return fmt.Sprintf("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories=%s -c fsync=%s -c max_connections=500 -c shared_buffers=32MB",
		p.Port, p.folder, flushing)
}

// Start starts the server, after Stop or Kill too, and waits until it answers.
func (p *PostgreSQL) Start() error {
	var err error
	for deadline := time.Now().Add(postgresTimeout); time.Now().Before(deadline); {
		if err = p.command("pg_ctl", "start", "--pgdata", p.data(), "--wait", "--silent", "--log", p.log(), "--options", p.settings()); err == nil {
			p.running = true
			return nil
		} // the children of a server that was killed may not have ended yet
	}
	log, _ := os.ReadFile(p.log()) // it is there or it says nothing
	return fmt.Errorf("%w: %s", err, log)
}

func (p *PostgreSQL) log() string { return filepath.Join(p.folder, "log") }

// Stop stops the server as an administrator does: sessions are ended.
func (p *PostgreSQL) Stop() error {
	p.running = false
	return p.command("pg_ctl", "stop", "--pgdata", p.data(), "--mode", "fast", "--wait", "--silent")
}

// Processes are those of the server: the postmaster, and then what that has started,
// which only Linux tells.
func (p *PostgreSQL) Processes() ([]int, error) {
	content, err := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
	if err != nil {
		return nil, fmt.Errorf("find PostgreSQL: %w", err)
	}
	postmaster, _, _ := strings.Cut(string(content), "\n")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%s/task/%s/children", postmaster, postmaster))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("find PostgreSQL: %w", err)
	}
	var pids []int
	for _, field := range append([]string{postmaster}, strings.Fields(string(children))...) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("find PostgreSQL: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Kill ends the server as the loss of its machine does: all of it at once. The
// postmaster is held and goes last, as sessions that see it gone commit what waits for
// a standby.
func (p *PostgreSQL) Kill() error {
	pids, err := p.Processes()
	if err != nil {
		return err
	}
	p.running = false
	if err := syscall.Kill(pids[0], syscall.SIGSTOP); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	if pids, err = p.Processes(); err != nil { // now it starts no others
		return err
	}
	for _, pid := range slices.Backward(pids) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill PostgreSQL: %w", err)
		}
	}
	return nil
}

// Remove stops the server and removes what it stored.
func (p *PostgreSQL) Remove() error {
	var err error
	if p.running {
		err = p.command("pg_ctl", "stop", "--pgdata", p.data(), "--mode", "immediate", "--wait", "--silent")
	}
	err = errors.Join(err, os.RemoveAll(p.folder))
	if p.leash != nil {
		err = errors.Join(err, p.leash.Close(), p.guard.Wait())
	}
	return err
}

// leashed waits for the end of its input, and ends the server if that still runs.
const leashed = `read _; test -e "$1" && kill -QUIT $(head -n 1 "$1"); exit 0`

// leashServer has the server end when the test is killed.
func (p *PostgreSQL) leashServer() (err error) {
	p.guard = exec.Command("/bin/sh", "-c", leashed, "sh", filepath.Join(p.data(), "postmaster.pid")) //nolint:noctx // its input ends it
	if p.leash, err = p.guard.StdinPipe(); err != nil {
		return fmt.Errorf("guard PostgreSQL: %w", err)
	}
	if err := p.guard.Start(); err != nil {
		return fmt.Errorf("guard PostgreSQL: %w", err)
	}
	return nil
}

// DSN returns the connection string of a database, as the superuser.
func (p *PostgreSQL) DSN(database string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s", postgresUser, postgresPassword, p.Port, database)
}

// Database makes a database for one test and returns its connection string. The
// test is skipped without a server.
func (p *PostgreSQL) Database(t testing.TB) (dsn string) {
	t.Helper()
	if p == nil {
		t.Skip("SKIPPED, so the store in PostgreSQL is not tested: ", ErrNoPostgreSQL)
	}
	name := fmt.Sprintf("test%d", p.databases.Add(1))
	p.Execute(t, "CREATE DATABASE "+name)
	return p.DSN(name)
}

// Execute runs a statement as the superuser.
func (p *PostgreSQL) Execute(t testing.TB, statement string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // after the test, too
	conn, err := pgx.Connect(ctx, p.DSN("postgres"))
	if err != nil {
		t.Fatalf("connect to PostgreSQL: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is open on it
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatalf("run %q: %v", statement, err)
	}
}

// Dump has pg_dump write a database into a file.
func (p *PostgreSQL) Dump(t testing.TB, dsn string) (file string) {
	t.Helper()
	file = filepath.Join(p.folder, fmt.Sprintf("dump%d", p.databases.Add(1)))
	if err := p.command("pg_dump", "--format", "custom", "--file", file, dsn); err != nil {
		t.Fatal(err)
	}
	return file
}

// Restore has pg_restore read such a file into an empty database.
func (p *PostgreSQL) Restore(t testing.TB, file, dsn string) {
	t.Helper()
	if err := p.command("pg_restore", "--exit-on-error", "--dbname", dsn, file); err != nil {
		t.Fatal(err)
	}
}

// Standby starts a second server that follows this one, which commits nothing
// from then on that the other has not written. It ends with the test.
func (p *PostgreSQL) Standby(t testing.TB) *PostgreSQL {
	t.Helper()
	standby, err := newPostgreSQL()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Remove(); err != nil {
			t.Error(err)
		}
	})
	source := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s application_name=standby", p.Port, postgresUser, postgresPassword)
	err = standby.command("pg_basebackup", "--pgdata", standby.data(), "--dbname", source, "--write-recovery-conf",
		"--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
	if err == nil {
		err = errors.Join(standby.Start(), standby.leashServer())
	}
	if err != nil {
		t.Fatalf("start a standby: %v", err)
	}
	p.Execute(t, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	p.Execute(t, "SELECT pg_reload_conf()")
	p.awaitStandby(t)
	return standby
}

// awaitStandby returns once commits wait for a standby. It is the checkpointer that has
// them do so: a new session, which has the setting, was begun after the server had told
// the checkpointer, and that looks at what it was told before it makes a checkpoint.
func (p *PostgreSQL) awaitStandby(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(postgresTimeout); p.read(t, "SHOW synchronous_standby_names") != "*"; {
		if time.Now().After(deadline) {
			t.Fatal("PostgreSQL does not wait for its standby")
		}
	}
	p.Execute(t, "CHECKPOINT")
}

// read runs a statement as the superuser, in a session of its own, that returns a text.
func (p *PostgreSQL) read(t testing.TB, statement string) (text string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.DSN("postgres"))
	if err != nil {
		t.Fatalf("connect to PostgreSQL: %v", err)
	}
	defer func() { _ = conn.Close(t.Context()) }() // nothing is open on it
	if err := conn.QueryRow(t.Context(), statement).Scan(&text); err != nil {
		t.Fatalf("run %q: %v", statement, err)
	}
	return text
}

// Promote makes a standby the primary.
func (p *PostgreSQL) Promote() error {
	return p.command("pg_ctl", "promote", "--pgdata", p.data(), "--wait", "--silent")
}
