# Lists the targets of a Makefile that have a comment of two hashes, in the
# groups that lines of two hashes and an at sign begin.
BEGIN { FS = ":.*## "; print "Usage: make TARGET [VARIABLE=VALUE]" }
/^##@ / { printf "\n%s\n", substr($0, 5); next }
/^[a-z][a-z-]*:.*## / { printf "  %-14s %s\n", $1, $2 }
END {
  print "\nVariables of run: POSTBUS_DIR, KUBECONFIG_FILE, KEY_FILE, INGRESS_ADDRESS, RECEIVER_ADDRESS,"
  print "MAIL_ADDRESS, METRICS_ADDRESS; KUBECONFIG=FILE uses a cluster that runs already, KUBEBUILDER_ASSETS=DIR"
  print "programs that are built already."
}
