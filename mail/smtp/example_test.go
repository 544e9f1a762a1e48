package smtp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"strings"

	"github.com/tallypost/tallypost/mail"
	"github.com/tallypost/tallypost/mail/smtp"
)

// printer is a session that prints what it takes.
type printer struct{}

func (printer) Mail(_ context.Context, from mail.Address, _ smtp.MailParams) error {
	fmt.Println("from", from)
	return nil
}

func (printer) Rcpt(_ context.Context, to mail.Recipient) error {
	if to.Address.Local != "bob" {
		return &smtp.Reply{Code: 550, Enhanced: "5.1.1", Text: "nobody of this name here"}
	}
	fmt.Println("to", to.Address)
	return nil
}

func (printer) Data(_ context.Context, r io.Reader) (smtp.Reply, error) {
	n, err := io.Copy(io.Discard, r)
	if err != nil {
		return smtp.Reply{}, err
	}
	fmt.Println(n, "octets")
	return smtp.Reply{Code: 250, Enhanced: "2.0.0", Text: "thank you"}, nil
}

func (printer) Reset()  {}
func (printer) Logout() {}

func Example() {
	server, err := smtp.NewServer(smtp.Config{
		Hostname: "mx.example.com",
		NewSession: func(context.Context, *smtp.Conn) (smtp.Session, error) {
			return printer{}, nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- server.Serve(ctx, ln) }()

	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	c := smtp.NewClient(conn, smtp.ClientConfig{Hello: "client.example.org"})
	if err := c.Hello(ctx); err != nil {
		log.Fatal(err)
	}
	env := &mail.Envelope{
		From: mail.Address{Local: "alice", Domain: "example.org"},
		Recipients: []mail.Recipient{
			{Address: mail.Address{Local: "bob", Domain: "example.com"}},
			{Address: mail.Address{Local: "carol", Domain: "example.com"}},
		},
	}
	const msg = "Subject: hello\r\n\r\nHello, Bob.\r\n"
	results, err := c.Send(ctx, env, strings.NewReader(msg), int64(len(msg)))
	if err != nil {
		log.Fatal(err)
	}
	for i, r := range results {
		fmt.Println(env.Recipients[i].Address.Local, "-", r.Reply)
	}
	c.Quit(ctx)
	stop()
	if err := <-ended; err != nil {
		log.Fatal(err)
	}
	// Output:
	// from alice@example.org
	// to bob@example.com
	// 31 octets
	// bob - 250 2.0.0 thank you
	// carol - 550 5.1.1 nobody of this name here
}
