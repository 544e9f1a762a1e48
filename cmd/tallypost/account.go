package main

import (
	"bufio"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tallypost/tallypost/internal/node"
	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/account"
)

// openAccounts opens the accounts of the node that a configuration file describes.
func openAccounts(config string) (account.Resolver, error) {
	cfg, err := node.Load(config)
	if err != nil {
		return account.Resolver{}, err
	}
	return node.OpenAccounts(cfg)
}

// openAddress is openAccounts, for a command about one address.
func openAddress(config, address string) (account.Resolver, mail.Address, error) {
	accounts, err := openAccounts(config)
	if err != nil {
		return accounts, mail.Address{}, err
	}
	addr, err := mail.ParseAddress(address)
	if err != nil {
		return accounts, addr, usageError{err}
	}
	return accounts, addr, nil
}

func accountCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "account", Short: "Add, list and remove who has mail here"}
	config := configFlag(cmd)
	cmd.AddCommand(accountAdd(config), accountPasswd(config), accountList(config), accountRemove(config))
	return cmd
}

func accountAdd(config *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add ADDRESS",
		Short: "Make an account; its password is read from standard input, or made and printed",
		Args:  cobra.ExactArgs(1),
	}
	generate := cmd.Flags().Bool("generate", false, "make a password and print it")
	quota := cmd.Flags().Int64("quota", 0, "most octets the mailbox holds; 0 is no limit")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		accounts, addr, err := openAddress(*config, args[0])
		if err != nil {
			return err
		}
		if !accounts.IsLocal(addr.Domain) {
			return fmt.Errorf("%s is not among the domains of %s", addr.Domain, *config)
		}
		cred, password, err := readCredential(cmd, *generate)
		if err != nil {
			return err
		}
		err = accounts.Add(account.Account{Address: addr, Credential: cred, Quota: *quota})
		return tellPassword(cmd, password, err)
	}
	return cmd
}

func accountPasswd(config *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "passwd ADDRESS",
		Short: "Change a password; it is read from standard input, or made and printed",
		Args:  cobra.ExactArgs(1),
	}
	generate := cmd.Flags().Bool("generate", false, "make a password and print it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		accounts, addr, err := openAddress(*config, args[0])
		if err != nil {
			return err
		}
		cred, password, err := readCredential(cmd, *generate)
		if err != nil {
			return err
		}
		err = accounts.Change(addr, func(a *account.Account) error {
			a.Credential = cred
			return nil
		})
		return tellPassword(cmd, password, err)
	}
	return cmd
}

// tellPassword prints a password that was made, once it is that of the account.
func tellPassword(cmd *cobra.Command, password string, err error) error {
	if err == nil && password != "" {
		fmt.Fprintln(cmd.OutOrStdout(), password)
	}
	return err
}

// readCredential takes a password from the terminal or the first line of standard input, or makes one of
// 100 bits, which it returns.
func readCredential(cmd *cobra.Command, generate bool) (cred account.Credential, made string, err error) {
	if generate {
		var b [13]byte
		rand.Read(b[:])
		made = strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))[:20]
		cred, err = account.NewCredential(made)
		return cred, made, err
	}
	var password string
	if terminal := int(os.Stdin.Fd()); cmd.InOrStdin() == os.Stdin && term.IsTerminal(terminal) {
		password, err = askPassword(cmd.ErrOrStderr(), terminal)
	} else {
		password, err = bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
		password = strings.TrimRight(password, "\r\n")
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return cred, "", fmt.Errorf("password: %w", err)
	case password == "":
		return cred, "", errors.New("no password on standard input; --generate makes one")
	}
	cred, err = account.NewCredential(password)
	return cred, "", err
}

// askPassword reads a password that the terminal does not show, twice.
func askPassword(to io.Writer, terminal int) (string, error) {
	ask := func(prompt string) (string, error) {
		fmt.Fprint(to, prompt)
		defer fmt.Fprintln(to)
		b, err := term.ReadPassword(terminal)
		return string(b), err
	}
	password, err := ask("Password: ")
	if err != nil || password == "" {
		return "", err
	}
	again, err := ask("The same again: ")
	if err == nil && again != password {
		err = errors.New("the two are not the same; nothing was changed")
	}
	return password, err
}

func accountList(config *string) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List accounts", Args: cobra.NoArgs}
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		accounts, err := openAccounts(*config)
		if err != nil {
			return err
		}
		list, _ := accounts.List()
		if *asJSON {
			for i := range list {
				list[i].Credential = account.Credential{}
			}
			return printJSON(cmd.OutOrStdout(), list)
		}
		for _, a := range list {
			fmt.Fprint(cmd.OutOrStdout(), a.Address)
			for _, also := range a.Also {
				fmt.Fprint(cmd.OutOrStdout(), " ", also)
			}
			if a.Disabled {
				fmt.Fprint(cmd.OutOrStdout(), " (disabled)")
			}
			fmt.Fprintln(cmd.OutOrStdout())
		}
		return nil
	}
	return cmd
}

func accountRemove(config *string) *cobra.Command {
	return removeCommand("Forget an account; its mailbox stays", config, account.Resolver.Remove)
}

// removeCommand is the command that calls remove with an address.
func removeCommand(short string, config *string,
	remove func(account.Resolver, mail.Address) error) *cobra.Command {
	return &cobra.Command{
		Use:   "remove ADDRESS",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			accounts, addr, err := openAddress(*config, args[0])
			if err != nil {
				return err
			}
			return remove(accounts, addr)
		},
	}
}

func aliasCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "alias", Short: "Add, list and remove addresses that lead elsewhere"}
	config := configFlag(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "add ADDRESS TARGET...",
		Short: "Send mail for an address elsewhere; *@domain catches what nothing else takes",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			accounts, err := openAccounts(*config)
			if err != nil {
				return err
			}
			var addrs []mail.Address
			for _, s := range args {
				addr, err := mail.ParseAddress(s)
				if err != nil {
					return usageError{err}
				}
				addrs = append(addrs, addr)
			}
			if !accounts.IsLocal(addrs[0].Domain) {
				return fmt.Errorf("%s is not among the domains of %s", addrs[0].Domain, *config)
			}
			return accounts.AddAlias(account.Alias{Address: addrs[0], Targets: addrs[1:]})
		},
	}, removeCommand("Forget an alias", config, account.Resolver.RemoveAlias), aliasList(config))
	return cmd
}

func aliasList(config *string) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List aliases", Args: cobra.NoArgs}
	asJSON := cmd.Flags().Bool("json", false, "for a machine")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		accounts, err := openAccounts(*config)
		if err != nil {
			return err
		}
		_, list := accounts.List()
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		for _, a := range list {
			fmt.Fprint(cmd.OutOrStdout(), a.Address, " ->")
			for _, t := range a.Targets {
				fmt.Fprint(cmd.OutOrStdout(), " ", t)
			}
			fmt.Fprintln(cmd.OutOrStdout())
		}
		return nil
	}
	return cmd
}
