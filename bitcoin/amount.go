package bitcoin

import (
	"strconv"
	"strings"
)

// String returns the amount in bitcoins with eight decimals, as Core's RPC writes it.
func (a Amount) String() string {
	sign, units := "", uint64(a)
	if a < 0 {
		sign, units = "-", -units
	}
	coins := strconv.FormatUint(units/uint64(Coin), 10)
	fraction := strconv.FormatUint(uint64(Coin)+units%uint64(Coin), 10)
	return sign + coins + "." + fraction[1:]
}

// Money returns the amount in bitcoins with at least two decimals and no more than needed, as
// Core's log and error texts write it (FormatMoney).
func (a Amount) Money() string {
	s := a.String()
	least := strings.IndexByte(s, '.') + 3
	for len(s) > least && s[len(s)-1] == '0' {
		s = s[:len(s)-1]
	}
	return s
}

// ParseAmount reads an amount in bitcoins as it comes in JSON, exponent and all. The errors are
// those of Core's AmountFromValue.
func ParseAmount(s string) (Amount, error) {
	v, ok := ParseFixedPoint(s, 8)
	if !ok {
		return 0, coreError("Invalid amount")
	}
	if !Amount(v).Valid() {
		return 0, coreError("Amount out of range")
	}
	return Amount(v), nil
}

// ParseMoney reads an amount in bitcoins from an option (Core's ParseMoney): digits with at most
// one point, up to eight decimals, spaces around.
func ParseMoney(s string) (Amount, bool) {
	coins, fraction, _ := strings.Cut(strings.Trim(s, spaces), ".")
	if strings.Trim(s, spaces) == "" || len(coins) > 10 || len(fraction) > 8 ||
		!digits(coins) || !digits(fraction) {
		return 0, false
	}
	fraction += "00000000"[len(fraction):]
	v, err := strconv.ParseInt(coins+fraction, 10, 64)
	return Amount(v), err == nil && Amount(v).Valid()
}

// ParseFixedPoint reads a JSON number as a multiple of 10^-decimals. It fails where the number is
// no such multiple or needs more than 18 digits (Core's function of this name).
func ParseFixedPoint(s string, decimals int) (v int64, ok bool) {
	s, negative := strings.CutPrefix(s, "-")
	number, exponent, ok := cutExponent(s)
	if !ok {
		return 0, false
	}
	whole, fraction, point := strings.Cut(number, ".")
	if whole == "" || !digits(whole) || len(whole) > 1 && whole[0] == '0' ||
		!digits(fraction) || point && fraction == "" {
		return 0, false
	}
	all := strings.TrimLeft(whole+fraction, "0")
	mantissa := strings.TrimRight(all, "0")
	if mantissa == "" { // zero: its decimals do not count
		all, fraction = "", ""
	}
	exponent += decimals - len(fraction) + len(all) - len(mantissa)
	if len(mantissa) > 18 || exponent < 0 || exponent >= 18 || len(mantissa)+exponent > 18 {
		return 0, mantissa == "" && exponent >= 0 && exponent < 18
	}
	if mantissa == "" {
		return 0, true
	}
	v, err := strconv.ParseInt(mantissa+strings.Repeat("0", exponent), 10, 64)
	if negative {
		v = -v
	}
	return v, err == nil
}

// cutExponent splits the exponent of a JSON number off. One beyond any use is cut to five digits.
func cutExponent(s string) (number string, exponent int, ok bool) {
	i := strings.IndexAny(s, "eE")
	if i < 0 {
		return s, 0, true
	}
	number, s = s[:i], s[i+1:]
	negative := strings.HasPrefix(s, "-")
	if negative || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	if s == "" || !digits(s) {
		return "", 0, false
	}
	s = strings.TrimLeft(s, "0")
	exponent, _ = strconv.Atoi("0" + s[:min(len(s), 5)])
	if negative {
		exponent = -exponent
	}
	return number, exponent, true
}

// spaces are what Core's IsSpace and TrimString take as such.
const spaces = " \f\n\r\t\v"

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
