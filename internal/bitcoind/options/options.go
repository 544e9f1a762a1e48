// Package options reads what bitcoind is told: its command line, bitcoin.conf and settings.json, by Bitcoin
// Core's rules and with Core's words for what is wrong.
//
// An option may stand on the command line, in the section of the chosen network, or before all sections;
// the first of these that has it decides. "-nofoo" takes foo back, and what stood before it is forgotten.
// Every option that Core knows is accepted; another is an error on the command line and passed over with a
// warning in the file (Bitcoin Core common/args.cpp, common/config.cpp, common/settings.cpp).
//
// What an option means is not here.
package options

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// value is a setting as it was given: false after -nofoo, else its text.
type value struct {
	negated bool
	yes     bool // a double negative, -nofoo=0
	text    string
}

func (v value) String() string {
	switch {
	case v.negated:
		return "0"
	case v.yes:
		return "1"
	}
	return v.text
}

// Section is the heading of a part of a configuration file, or the prefix of an option in it.
type Section struct {
	Name string
	File string
	Line int
}

// Options are the settings of a node. They are read by one goroutine and not changed afterwards.
type Options struct {
	known    map[string]bool
	implied  map[string]value // by other settings
	command  map[string][]value
	settings map[string][]value            // of the settings file
	stored   map[string]json.RawMessage    // the same as it stands there
	config   map[string]map[string][]value // by section, "" being none
	sections []Section
	network  string // section that counts beside none, once chosen

	// Rest is what followed the options on a command line that may have a command.
	Rest []string
	// Warnings and Notes are to be logged once there is a log.
	Warnings, Notes []string
	// File is the configuration file that was to be read, once ReadFiles has; empty after -noconf.
	File string
}

// New returns settings in which nothing is set, of a program that knows these options.
func New(known []string) *Options {
	o := &Options{
		known:   make(map[string]bool, len(known)),
		implied: make(map[string]value),
		command: make(map[string][]value),
		config:  make(map[string]map[string][]value),
	}
	for _, name := range known {
		o.known[name] = true
	}
	return o
}

// key is the name of an option taken apart.
type key struct {
	section, name string
	negated       bool
}

func parseKey(s string) key {
	var k key
	if section, name, ok := strings.Cut(s, "."); ok {
		k.section, s = section, name
	}
	k.name, k.negated = strings.CutPrefix(s, "no")
	return k
}

func (o *Options) interpret(k key, text string, given bool) (value, error) {
	if !k.negated {
		if !given && slices.Contains(notElided, k.name) {
			return value{}, fmt.Errorf("Can not set -%s with no value. Please specify value with -%[1]s=value.", k.name)
		}
		return value{text: text}, nil
	}
	if slices.Contains(notNegated, k.name) {
		return value{}, fmt.Errorf("Negating of -%s is meaningless and therefore forbidden", k.name)
	}
	if given && !parseBool(text) {
		o.Warnings = append(o.Warnings, fmt.Sprintf(
			"Parsed potentially confusing double-negative -%s=%s", k.name, text))
		return value{yes: true}, nil
	}
	return value{negated: true}, nil
}

// ParseCommandLine reads the arguments behind the program's name. Where rest is set, options end at the
// first argument that is none, and that and all behind it become Rest; else such an argument is an error.
func (o *Options) ParseCommandLine(args []string, rest bool) error {
	for i, arg := range args {
		if arg == "-" { // the end of the options; others that follow are passed over
			o.Rest = slices.Clone(args[i:])
			for len(o.Rest) > 0 && strings.HasPrefix(o.Rest[0], "-") {
				o.Rest = o.Rest[1:]
			}
			break
		}
		name, text, given := strings.Cut(arg, "=")
		if !strings.HasPrefix(name, "-") {
			if !rest {
				return fmt.Errorf("Invalid command '%s'", arg)
			}
			o.Rest = args[i:]
			break
		}
		name = strings.TrimPrefix(name[1:], "-")
		k := parseKey(name)
		if !o.known[k.name] || k.section != "" {
			return fmt.Errorf("Invalid parameter %s", arg)
		}
		v, err := o.interpret(k, text, given)
		if err != nil {
			return err
		}
		o.command[k.name] = append(o.command[k.name], v)
	}
	if includes := live(o.command["includeconf"]); len(includes) > 0 {
		text := strconv.Quote(includes[0].text)
		if includes[0].yes {
			text = "true"
		}
		return fmt.Errorf("-includeconf cannot be used from commandline; -includeconf=%s", text)
	}
	return nil
}

// live returns the values behind the last negation.
func live(vs []value) []value {
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].negated {
			return vs[i+1:]
		}
	}
	return vs
}

// networkOnly are the options that a section-less line sets for mainnet alone, lest two networks use the
// same ports and peers (Core's NETWORK_ONLY).
var networkOnly = []string{"addnode", "bind", "connect", "port", "rpcbind", "rpcport", "wallet"}

func (o *Options) usesDefaultSection(name string) bool {
	return o.network == "main" || o.network == "" || !slices.Contains(networkOnly, name)
}

// get returns the setting that decides, and whether there is one.
func (o *Options) get(name string) (value, bool) {
	if v, ok := o.implied[name]; ok {
		return v, true
	}
	for _, of := range []map[string][]value{o.command, o.settings} {
		if vs := of[name]; len(vs) > 0 {
			return vs[len(vs)-1], true
		}
	}
	// In a file the first line wins, where on the command line the last does.
	if v, ok := firstInFile(o.config[o.network][name], o.network != ""); ok {
		return v, true
	}
	if o.usesDefaultSection(name) {
		return firstInFile(o.config[""][name], true)
	}
	return value{}, false
}

func firstInFile(vs []value, use bool) (value, bool) {
	if !use || len(vs) == 0 {
		return value{}, false
	}
	if last := vs[len(vs)-1]; last.negated {
		return last, true
	}
	return live(vs)[0], true
}

// Has reports whether the option is set, if only to be negated.
func (o *Options) Has(name string) bool {
	_, ok := o.get(name)
	return ok
}

// Negated reports whether the option was taken back with -no.
func (o *Options) Negated(name string) bool {
	v, _ := o.get(name)
	return v.negated
}

// String returns the option's text, or a default where it is not set.
func (o *Options) String(name, def string) string {
	if v, ok := o.get(name); ok {
		return v.String()
	}
	return def
}

// Int returns the option as a number. As in Core, text that is none counts as what number it begins with.
func (o *Options) Int(name string, def int64) int64 {
	if v, ok := o.get(name); ok {
		return atoi(v.String())
	}
	return def
}

// Bool returns the option as a truth: set to nothing, or to a number that is not 0.
func (o *Options) Bool(name string, def bool) bool {
	if v, ok := o.get(name); ok {
		return parseBool(v.String())
	}
	return def
}

// List returns all values of an option that may stand more than once: those of the command line first.
func (o *Options) List(name string) []string {
	var out []string
	add := func(vs []value) (stop bool) {
		for _, v := range live(vs) {
			out = append(out, v.String())
		}
		return len(live(vs)) < len(vs) // a negation hides what ranks lower
	}
	if v, ok := o.implied[name]; ok {
		return []string{v.String()}
	}
	if add(o.command[name]) || add(o.settings[name]) {
		return out
	}
	if o.network != "" && add(o.config[o.network][name]) {
		return out
	}
	if o.usesDefaultSection(name) {
		add(o.config[""][name])
	}
	return out
}

// SetDefault sets an option that is not set: one setting implies another.
func (o *Options) SetDefault(name, text string) (set bool) {
	if o.Has(name) {
		return false
	}
	o.implied[name] = value{text: text}
	return true
}

// UseNetwork chooses the section of a network.
func (o *Options) UseNetwork(name string) { o.network = name }

// Network returns the name of the network that -chain, -regtest and their kin choose.
func (o *Options) Network() (string, error) {
	saved := o.network
	o.network = ""
	defer func() { o.network = saved }()
	var chosen []string
	for _, flag := range []struct{ option, network string }{
		{"regtest", "regtest"}, {"signet", "signet"}, {"testnet", "test"}, {"testnet4", "testnet4"},
	} {
		if o.Bool(flag.option, false) {
			chosen = append(chosen, flag.network)
		}
	}
	if o.Has("chain") {
		chosen = append(chosen, o.String("chain", ""))
	}
	switch len(chosen) {
	case 0:
		return "main", nil
	case 1:
		return chosen[0], nil
	}
	return "", fmt.Errorf("Invalid combination of -regtest, -signet, -testnet, -testnet4 and -chain. " +
		"Can use at most one.")
}

// Misplaced returns the options that are set without a section only, where the chosen network needs them
// in its own.
func (o *Options) Misplaced() []string {
	var out []string
	for _, name := range networkOnly {
		if !o.usesDefaultSection(name) && len(o.config[""][name]) > 0 &&
			len(o.config[o.network][name]) == 0 && len(o.command[name]) == 0 {
			out = append(out, "-"+name)
		}
	}
	return out
}

// UnknownSections returns the headings of the file that are no network.
func (o *Options) UnknownSections() []Section {
	var out []Section
	for _, s := range o.sections {
		if !slices.Contains([]string{"main", "test", "testnet4", "signet", "regtest"}, s.Name) {
			out = append(out, s)
		}
	}
	return out
}

func parseBool(s string) bool { return s == "" || atoi(s) != 0 }

// atoi reads the number at the start of s as C's strtoll does, bounded by int64 (Core's
// LocaleIndependentAtoi).
func atoi(s string) int64 {
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	end := 0
	if end < len(s) && (s[end] == '-' || s[end] == '+') {
		end++
	}
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, _ := strconv.ParseInt(s[:end], 10, 64) // out of range gives the bound, no number gives 0
	return n
}
