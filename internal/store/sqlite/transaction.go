package sqlite

import (
	"context"
	"database/sql"
	"errors"
)

// transaction is the writer's connection with its prepared statements and what
// the open transaction has reached. Only the writer's goroutine uses it.
type transaction struct {
	ctx  context.Context
	conn *sql.Conn
	// head is the position of the newest event, those not committed included.
	head, committedHead int64
	// revision is the highest revision of any row of deliveries and requests.
	revision int64

	selectContact, selectContactByID, selectExternalID, insertContact, updateContact, deleteContact, countContact *sql.Stmt
	selectOnce, insertOnce, deleteOnce                                                                            *sql.Stmt
	upsertKeyUse, deleteKeyUse                                                                                    *sql.Stmt
	upsertTexts                                                                                                   *sql.Stmt
	insertEvent, purgeEvents, purgeSetAside, insertForgetting, scrubEvents, deleteForgetting                      *sql.Stmt
	insertDelivery, claimDelivery, updateDelivery, deleteDelivery, selectOperations                               *sql.Stmt
	pruneEvents, pruneSetAside, pruneForgetting                                                                   *sql.Stmt
	insertSetAside, deleteSetAside, dropSetAside                                                                  *sql.Stmt
	upsertRequest, dropRequests                                                                                   *sql.Stmt
	upsertAttempts, touchDelivery, dropAttempts                                                                   *sql.Stmt
	adoptNamespace, renewNamespace, namespaceIsBound                                                              *sql.Stmt
	bindObject, releaseObject                                                                                     *sql.Stmt
	removeSetAside, removeEvents                                                                                  *sql.Stmt
	prepared                                                                                                      []*sql.Stmt
}

func newTransaction(ctx context.Context, conn *sql.Conn) (*transaction, error) {
	tx := &transaction{ctx: ctx, conn: conn}
	for statement, text := range map[**sql.Stmt]string{
		&tx.selectContact:     selectContact,
		&tx.selectContactByID: selectContactByID,
		&tx.selectExternalID:  selectExternalID,
		&tx.insertContact:     insertContact,
		&tx.updateContact:     updateContact,
		&tx.deleteContact:     deleteContact,
		&tx.countContact:      countContact,
		&tx.selectOnce:        selectOnce,
		&tx.insertOnce:        insertOnce,
		&tx.deleteOnce:        deleteOnce,
		&tx.upsertKeyUse:      upsertKeyUse,
		&tx.deleteKeyUse:      deleteKeyUse,
		&tx.upsertTexts:       upsertTexts,
		&tx.insertEvent:       insertEvent,
		&tx.purgeEvents:       purgeEvents,
		&tx.insertForgetting:  insertForgetting,
		&tx.scrubEvents:       scrubEvents,
		&tx.deleteForgetting:  deleteForgetting,
		&tx.insertDelivery:    insertDelivery,
		&tx.claimDelivery:     claimDelivery,
		&tx.updateDelivery:    updateDelivery,
		&tx.deleteDelivery:    deleteDelivery,
		&tx.selectOperations:  selectOperations,
		&tx.purgeSetAside:     purgeSetAside,
		&tx.pruneEvents:       pruneEvents,
		&tx.pruneSetAside:     pruneSetAside,
		&tx.pruneForgetting:   pruneForgetting,
		&tx.insertSetAside:    insertSetAside,
		&tx.deleteSetAside:    deleteSetAside,
		&tx.dropSetAside:      dropSetAside,
		&tx.upsertRequest:     upsertRequest,
		&tx.dropRequests:      dropRequests,
		&tx.upsertAttempts:    upsertAttempts,
		&tx.touchDelivery:     touchDelivery,
		&tx.dropAttempts:      dropAttempts,
		&tx.adoptNamespace:    adoptNamespace,
		&tx.renewNamespace:    renewNamespace,
		&tx.namespaceIsBound:  namespaceIsBound,
		&tx.bindObject:        bindObject,
		&tx.releaseObject:     releaseObject,
		&tx.removeSetAside:    removeSetAside,
		&tx.removeEvents:      removeEvents,
	} {
		made, err := conn.PrepareContext(ctx, text) //nolint:sqlclosecheck // close closes them all
		if err != nil {
			return nil, errors.Join(err, tx.close())
		}
		*statement = made
		tx.prepared = append(tx.prepared, made)
	}
	// sqlite_sequence knows the highest position ever given, also after the
	// events themselves were removed.
	err := conn.QueryRowContext(ctx, `SELECT
		coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0),
		max(coalesce((SELECT max(revision) FROM deliveries), 0), coalesce((SELECT max(revision) FROM requests), 0))`).Scan(&tx.head, &tx.revision)
	if err != nil {
		return nil, errors.Join(err, tx.close())
	}
	tx.committedHead = tx.head
	return tx, nil
}

// close frees the statements too: SQLite keeps a connection open as long as it
// has one.
func (tx *transaction) close() error {
	var errs []error
	for _, statement := range tx.prepared {
		errs = append(errs, statement.Close())
	}
	return errors.Join(append(errs, tx.conn.Close())...)
}

func (tx *transaction) begin() error {
	_, err := tx.conn.ExecContext(tx.ctx, "BEGIN IMMEDIATE")
	return err
}

func (tx *transaction) commit() error {
	if _, err := tx.conn.ExecContext(tx.ctx, "COMMIT"); err != nil {
		return err
	}
	tx.committedHead = tx.head
	return nil
}

func (tx *transaction) rollback() error {
	tx.head = tx.committedHead
	_, err := tx.conn.ExecContext(tx.ctx, "ROLLBACK")
	return err
}

// exec runs a prepared statement.
func (tx *transaction) exec(statement *sql.Stmt, arguments ...any) (sql.Result, error) {
	return statement.ExecContext(tx.ctx, arguments...)
}

// row runs a prepared query for one row.
func (tx *transaction) row(query *sql.Stmt, arguments ...any) *sql.Row {
	return query.QueryRowContext(tx.ctx, arguments...)
}
