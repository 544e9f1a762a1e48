package options

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// MaxFileBytes bounds a configuration file: no honest one is that long.
const MaxFileBytes = 4 << 20

const spaces = " \t\r\n"

// ParseFile reads the text of a configuration file, whose name is for messages.
func (o *Options) ParseFile(text, name string) error {
	prefix := ""
	for i, line := range strings.Split(text, "\n") {
		line, _, comment := strings.Cut(line, "#")
		line = strings.Trim(line, spaces)
		switch {
		case line == "":
		case len(line) > 1 && line[0] == '[' && line[len(line)-1] == ']':
			section := line[1 : len(line)-1]
			o.sections = append(o.sections, Section{section, name, i + 1})
			prefix = section + "."
		case line[0] == '-':
			return fmt.Errorf("parse error on line %d: %s, options in configuration file must be "+
				"specified without leading -", i+1, line)
		default:
			if err := o.parseLine(prefix, line, name, i+1, comment); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *Options) parseLine(prefix, line, file string, number int, comment bool) error {
	name, text, ok := strings.Cut(line, "=")
	if !ok {
		hint := ""
		if strings.HasPrefix(line, "no") {
			hint = fmt.Sprintf(", if you intended to specify a negated option, use %s=1 instead", line)
		}
		return fmt.Errorf("parse error on line %d: %s%s", number, line, hint)
	}
	name = prefix + strings.Trim(name, spaces)
	text = strings.Trim(text, spaces)
	if comment && strings.Contains(name, "rpcpassword") {
		return fmt.Errorf("parse error on line %d, using # in rpcpassword can be ambiguous "+
			"and should be avoided", number)
	}
	if dot := strings.LastIndexByte(name, '.'); dot >= len(prefix) {
		o.sections = append(o.sections, Section{name[:dot], file, number})
	}
	k := parseKey(name)
	if k.name == "conf" {
		return errors.New("conf cannot be set in the configuration file; use includeconf= if you " +
			"want to include additional config files")
	}
	if k.name == "reindex" {
		o.Warnings = append(o.Warnings, "reindex=1 is set in the configuration file, which will "+
			"significantly slow down startup. Consider removing or commenting out this option for "+
			"better performance, unless there is currently a condition which makes rebuilding the "+
			"indexes necessary")
	}
	if !o.known[k.name] {
		o.Warnings = append(o.Warnings, "Ignoring unknown configuration value "+name)
		return nil
	}
	v, err := o.interpret(k, text, true)
	if err != nil {
		return err
	}
	if o.config[k.section] == nil {
		o.config[k.section] = make(map[string][]value)
	}
	o.config[k.section][k.name] = append(o.config[k.section][k.name], v)
	return nil
}

// ReadFiles reads the configuration file that -conf names, bitcoin.conf in the data directory by default,
// and those that it includes. warn receives sentences that belong on standard error.
func (o *Options) ReadFiles(warn func(string)) error {
	conf := o.path("conf", "bitcoin.conf")
	o.File = conf // the file itself may change where data are
	if conf == "" {
		return nil // -noconf
	}
	text, err := readFile(conf)
	switch {
	case errors.Is(err, errIsDirectory):
		return fmt.Errorf("Config file %q is a directory.", conf)
	case err != nil && (o.Has("conf") || !errors.Is(err, fs.ErrNotExist)):
		return fmt.Errorf("specified config file %q could not be opened.", conf)
	case err != nil:
		return nil
	}
	if err := o.ParseFile(text, conf); err != nil {
		return err
	}
	if len(o.command["includeconf"]) == 0 { // else -noincludeconf; anything else was refused
		if err := o.readIncluded(warn); err != nil {
			return err
		}
	}
	return o.CheckDataDir()
}

func (o *Options) readIncluded(warn func(string)) error {
	network, err := o.Network()
	if err != nil {
		return err
	}
	include := func(section string, skip int) (names []string, count int) {
		vs := o.config[section]["includeconf"]
		for _, v := range vs[max(skip, len(vs)-len(live(vs))):] {
			names = append(names, v.String())
		}
		return names, len(vs)
	}
	names, ofNetwork := include(network, 0)
	more, ofAll := include("", 0)
	for _, name := range append(names, more...) {
		file := o.absolute(name)
		text, err := readFile(file)
		if errors.Is(err, errIsDirectory) {
			return fmt.Errorf("Included config file %q is a directory.", file)
		}
		if err != nil {
			return errors.New("Failed to include configuration file " + name)
		}
		if err := o.ParseFile(text, name); err != nil {
			return err
		}
	}
	nested, _ := include(network, ofNetwork)
	more, _ = include("", ofAll)
	for _, name := range append(nested, more...) {
		warn("warning: -includeconf cannot be used from included files; ignoring -includeconf=" + name)
	}
	return nil
}

var errIsDirectory = errors.New("is a directory")

func readFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return "", errIsDirectory
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err == nil && len(b) > MaxFileBytes {
		err = fmt.Errorf("%s is longer than %d octets", name, MaxFileBytes)
	}
	return string(b), err
}

// DataDir returns the directory that -datadir names, or Core's default: .bitcoin at home.
func (o *Options) DataDir() string {
	if dir := o.String("datadir", ""); dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			return abs
		}
		return dir
	}
	return DefaultDir()
}

// DefaultDir returns Core's default data directory.
func DefaultDir() string {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return filepath.Join(home, ".bitcoin")
}

// CheckDataDir fails where -datadir names no directory.
func (o *Options) CheckDataDir() error {
	dir := o.String("datadir", "")
	if dir == "" {
		return nil
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return fmt.Errorf("specified data directory %q does not exist.", dir)
	}
	return nil
}

// path returns the file that an option names, below the data directory if it is relative; nothing where
// the option is negated.
func (o *Options) path(name, def string) string {
	if o.Negated(name) {
		return ""
	}
	file := o.String(name, "")
	if file == "" {
		file = def
	}
	return o.absolute(file)
}

func (o *Options) absolute(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(o.DataDir(), file)
}
