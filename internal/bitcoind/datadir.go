package bitcoind

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tallypost/tallypost/bitcoin"
	"github.com/tallypost/tallypost/internal/bitcoind/options"
)

// confName is the configuration file that is read where -conf names no other.
const confName = "bitcoin.conf"

// Configure reads the files that the command line leads to, chooses the network, makes its directory and
// brings its settings file up to date (Bitcoin Core common/init.cpp, InitConfig). warn receives sentences for
// standard error.
func Configure(o *options.Options, warn func(string)) error {
	if err := o.CheckDataDir(); err != nil {
		return fmt.Errorf("Specified data directory %q does not exist.", o.String("datadir", ""))
	}
	before := o.DataDir()
	if err := o.ReadFiles(warn); err != nil {
		return fmt.Errorf("Error reading configuration file: %w", err)
	}
	name, err := o.Network()
	if err != nil {
		return err
	}
	o.UseNetwork(name)
	net, err := bitcoin.NetworkByName(name)
	if err != nil {
		return fmt.Errorf("Unknown chain %s.", name)
	}
	base := o.DataDir()
	dir := filepath.Join(base, net.DataDir)
	for _, d := range []string{base, dir} {
		if err := makeDataDir(d); err != nil {
			return err
		}
	}
	if err := checkIgnored(o, before); err != nil {
		return err
	}
	path := o.SettingsFile(dir)
	if path == "" {
		return nil
	}
	if err := o.ReadSettings(path); err != nil {
		return fmt.Errorf("Settings file could not be read:\n- %w", err)
	}
	if err := o.WriteSettings(path); err != nil {
		return fmt.Errorf("Settings file could not be written:\n- %w", err)
	}
	return nil
}

// makeDataDir makes a directory, and in a new one a place for wallets: programs that have wallets look for
// them there only if there is one.
func makeDataDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "wallets"), 0o700); err != nil {
		return fmt.Errorf("Cannot write to directory '%s'; check permissions.", dir)
	}
	return nil
}

// checkIgnored refuses to start where the data directory has a configuration file that was not the one to be
// read: somebody would wonder why it has no effect. before is where the data directory was before the file
// was read.
func checkIgnored(o *options.Options, before string) error {
	here := filepath.Join(o.DataDir(), confName)
	ours, err := os.Stat(here)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if o.File == "" {
		o.Notes = append(o.Notes, fmt.Sprintf("Data directory %q contains a %q file which is explicitly ignored "+
			"using -noconf.", o.DataDir(), confName))
		return nil
	}
	if read, err2 := os.Stat(o.File); err == nil && err2 == nil && os.SameFile(ours, read) {
		return nil
	}
	from := fmt.Sprintf("data directory %q", before)
	if conf := o.String("conf", ""); conf != "" {
		from = fmt.Sprintf("command line argument %q", "-conf="+conf)
	}
	text := fmt.Sprintf("Data directory %[1]q contains a %[2]q file which is ignored, because a different "+
		"configuration file %[3]q from %[4]s is being used instead. Possible ways to address this would be to:\n"+
		"- Delete or rename the %[2]q file in data directory %[1]q.\n"+
		"- Change datadir= or conf= options to specify one configuration file, not two, and use includeconf= to "+
		"include any other configuration files.", o.DataDir(), confName, o.File, from)
	if o.Bool("allowignoredconf", false) {
		o.Warnings = append(o.Warnings, text)
		return nil
	}
	return errors.New(text + "\n- Set allowignoredconf=1 option to treat this condition as a warning, not an error.")
}
