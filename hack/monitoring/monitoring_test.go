// Package monitoring_test answers: do alerts and dashboard speak of metrics that there
// are, and do the alerts fire?
//
// It has a module of its own, so that the product does not depend on Prometheus'
// server. It knows the metrics from docs/reference/metrics.md, which is generated from
// what the components register.
package monitoring_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// What is held together here.
const (
	rules         = "../../config/monitoring/prometheusrule.yaml"
	dashboardFile = "../../config/monitoring/dashboard.json"
	runbook       = "../../docs/alerts.md"
	observability = "../../docs/observability.md"
	reference     = "../../docs/reference/metrics.md"
)

// ruleGroups are what a rules file of Prometheus says.
type ruleGroups struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

// rule is an alert, or a recording rule.
type rule struct {
	Alert       string            `json:"alert,omitempty"`
	Record      string            `json:"record,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// alerts reads the alerts by their names.
func alerts(t *testing.T) map[string]rule {
	t.Helper()
	g := NewWithT(t)
	var manifest struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Metadata   map[string]any `json:"metadata"`
		Spec       ruleGroups     `json:"spec"`
	}
	g.Expect(yaml.UnmarshalStrict(read(t, rules), &manifest)).To(Succeed())
	found := map[string]rule{}
	for _, group := range manifest.Spec.Groups {
		for _, alert := range group.Rules {
			g.Expect(found).NotTo(HaveKey(alert.Alert))
			found[alert.Alert] = alert
		}
	}
	g.Expect(found).NotTo(BeEmpty())
	return found
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return text
}

// metric is what is known of one: its labels with their values, which are empty where
// they are not known.
type metric map[string][]string

// targetLabels come from the scrape.
var targetLabels = []string{"namespace", "pod", "instance", "job", "component"}

// known returns every metric that the components register, which docs/reference tells,
// and those of others that docs/observability.md lists.
func known(t *testing.T) map[string]metric {
	t.Helper()
	found := map[string]metric{}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| .* \\| (.*) \\|$")
	for _, parts := range row.FindAllStringSubmatch(string(read(t, reference)), -1) {
		name, described := parts[1], labelsOf(parts[3])
		if parts[2] != "histogram" {
			found[name] = described
			continue
		}
		found[name+"_sum"], found[name+"_count"] = described, described
		buckets := maps.Clone(described)
		buckets["le"] = nil
		found[name+"_bucket"] = buckets
	}
	// What is left open of a subscription is closed of all.
	found["postbus_dispatcher_subscription_state"]["state"] = found["postbus_dispatcher_subscriptions"]["state"]
	found["postbus_dispatcher_subscription_attempts_total"]["outcome"] = found["postbus_dispatcher_attempts_total"]["outcome"]
	for _, row := range ofOthers(t) {
		found[row[0]] = metric{}
		for _, label := range row[1:] {
			found[row[0]][label] = nil
		}
	}
	return found
}

// labelsOf reads labels as the reference has them: `name`: value, value; `other`.
func labelsOf(text string) metric {
	described := metric{}
	for part := range strings.SplitSeq(text, "; ") {
		name, values, _ := strings.Cut(part, ": ")
		if name = strings.Trim(name, "` "); name == "" {
			continue
		}
		described[name] = nil
		if values != "" && !strings.Contains(values, "…") {
			described[name] = strings.Split(values, ", ")
		}
	}
	return described
}

// ofOthers reads the table of metrics that libraries make: the name, and the labels.
func ofOthers(t *testing.T) (rows [][]string) {
	t.Helper()
	g := NewWithT(t)
	_, section, found := strings.Cut(string(read(t, observability)), "### Of others\n")
	g.Expect(found).To(BeTrue())
	section, _, _ = strings.Cut(section, "\n#")
	for line := range strings.Lines(section) {
		var row []string
		for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(line, -1) {
			row = append(row, name[1])
		}
		if strings.HasPrefix(line, "| `") {
			rows = append(rows, row)
		}
	}
	g.Expect(rows).NotTo(BeEmpty())
	return rows
}

// expressions returns all expressions of alerts, dashboard and docs, by where they are.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	g := NewWithT(t)
	found := map[string]string{}
	for name, alert := range alerts(t) {
		found["alert "+name] = alert.Expr
	}
	var dashboard struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				RefID string `json:"refId"`
				Expr  string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
		Templating struct {
			List []struct {
				Name       string `json:"name"`
				Definition string `json:"definition"`
			} `json:"list"`
		} `json:"templating"`
	}
	g.Expect(json.Unmarshal(read(t, dashboardFile), &dashboard)).To(Succeed())
	replacer := strings.NewReplacer("$__rate_interval", "5m")
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			found["panel "+panel.Title+" "+target.RefID] = replacer.Replace(target.Expr)
		}
	}
	variable := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for _, list := range dashboard.Templating.List {
		if parts := variable.FindStringSubmatch(list.Definition); parts != nil {
			found["variable "+list.Name] = "max by (" + parts[2] + ") (" + parts[1] + ")"
		}
	}
	for _, groups := range documented(t) {
		for _, group := range groups.Groups {
			for _, r := range group.Rules {
				found["docs "+r.Record+r.Alert] = r.Expr
			}
		}
	}
	g.Expect(len(found)).To(BeNumerically(">", 40))
	return found
}

// documented returns the rules of docs/observability.md.
func documented(t *testing.T) (all []ruleGroups) {
	t.Helper()
	for _, block := range regexp.MustCompile("(?s)```yaml\n(groups:.*?)```").FindAllStringSubmatch(string(read(t, observability)), -1) {
		var groups ruleGroups
		NewWithT(t).Expect(yaml.UnmarshalStrict([]byte(block[1]), &groups)).To(Succeed())
		all = append(all, groups)
	}
	NewWithT(t).Expect(all).NotTo(BeEmpty())
	return all
}

// Each expression parses, and names nothing that there is not.
func TestExpressions(t *testing.T) {
	metrics := known(t)
	recorded := metric{"namespace": nil, "subscription": nil}
	for _, groups := range documented(t) {
		for _, group := range groups.Groups {
			for _, r := range group.Rules {
				metrics[r.Record] = recorded
			}
		}
	}
	for place, text := range expressions(t) {
		t.Run(place, func(t *testing.T) {
			expression, err := parser.NewParser(parser.Options{}).ParseExpr(text)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			for _, wrong := range check(expression, metrics) {
				t.Error(wrong)
			}
		})
	}
}

// check returns what an expression names that there is not.
func check(expression parser.Expr, metrics map[string]metric) (wrong []string) {
	among := metric{} // all labels of the metrics in it
	for _, label := range targetLabels {
		among[label] = nil
	}
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		described, ok := metrics[selector.Name]
		if !ok {
			wrong = append(wrong, "there is no metric "+selector.Name)
			return nil
		}
		maps.Copy(among, described)
		for _, matcher := range selector.LabelMatchers {
			wrong = append(wrong, checkMatcher(selector.Name, described, matcher)...)
		}
		return nil
	})
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		var grouped []string
		switch node := node.(type) {
		case *parser.AggregateExpr:
			grouped = node.Grouping
		case *parser.BinaryExpr:
			if node.VectorMatching != nil {
				grouped = node.VectorMatching.MatchingLabels
			}
		}
		for _, label := range grouped {
			if _, ok := among[label]; !ok {
				wrong = append(wrong, "nothing in it has the label "+label)
			}
		}
		return nil
	})
	return wrong
}

// checkMatcher returns what is wrong with a matcher: of a label that has known values
// it must match one, and not all.
func checkMatcher(name string, described metric, matcher *labels.Matcher) []string {
	values, ok := described[matcher.Name]
	switch {
	case matcher.Name == model.MetricNameLabel:
		return nil
	case !ok:
		return []string{name + " has no label " + matcher.Name}
	case len(values) > 0 && !slices.ContainsFunc(values, matcher.Matches):
		return []string{name + " has no value that fits " + matcher.String()}
	case len(values) > 0 && !slices.ContainsFunc(values, func(value string) bool { return !matcher.Matches(value) }):
		return []string{name + " has no value that does not fit " + matcher.String()}
	}
	return nil
}

// A check that finds nothing proves nothing until it has found something.
func TestWrongExpressionsAreFound(t *testing.T) {
	metrics := known(t)
	for text, want := range map[string]string{
		`postbus_store_down`:                                            "there is no metric postbus_store_down",
		`postbus_store_up{operation="join"}`:                            "postbus_store_up has no label operation",
		`postbus_store_errors_total{operation="jion"}`:                  `postbus_store_errors_total has no value that fits operation="jion"`,
		`postbus_dispatcher_subscription_state{state!="Actve"}`:         `postbus_dispatcher_subscription_state has no value that does not fit state!="Actve"`,
		`sum by (subscription) (postbus_store_up)`:                      "nothing in it has the label subscription",
		`rate(postbus_ingress_request_duration_seconds[5m])`:            "there is no metric postbus_ingress_request_duration_seconds",
		`postbus_store_up and on (code) postbus_ingress_contacts_total`: "nothing in it has the label code",
	} {
		t.Run(text, func(t *testing.T) {
			g := NewWithT(t)
			expression, err := parser.NewParser(parser.Options{}).ParseExpr(text)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(check(expression, metrics)).To(ConsistOf(want))
		})
	}
}

// Each alert has a heading that tells what to do, and each such heading an alert.
func TestAlertsAreDocumented(t *testing.T) {
	g := NewWithT(t)
	const runbooks = "https://postbus.dev/docs/alerts.md#"
	var names []string
	for name, alert := range alerts(t) {
		names = append(names, name)
		g.Expect(alert.Annotations).To(HaveKeyWithValue("runbook_url", runbooks+strings.ToLower(name)), name)
		g.Expect(alert.Annotations["summary"]).NotTo(BeEmpty(), name)
		g.Expect(alert.Labels["severity"]).To(BeElementOf("critical", "warning"), name)
	}
	var headings []string
	docs := string(read(t, runbook))
	for _, section := range regexp.MustCompile(`(?ms)^### (\w+)\n\n\*(\w+)\.\*`).FindAllStringSubmatch(docs, -1) {
		headings = append(headings, section[1])
		g.Expect(alerts(t)[section[1]].Labels).To(HaveKeyWithValue("severity", section[2]), section[1])
	}
	g.Expect(headings).To(ConsistOf(names))
}
