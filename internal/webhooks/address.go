package webhooks

import (
	"errors"
	"net/netip"
	"syscall"
)

// ErrAddress is the cause of a failure if a host has an address that is not permitted.
var ErrAddress = errors.New("address is not permitted")

// AddressRule decides which addresses may be connected to. It is applied to the
// address of each connection, after the name was resolved, since what a name
// resolves to may change between a check and a connection.
type AddressRule struct {
	// Loopback permits loopback addresses and no others: for URLs of a loopback host.
	Loopback bool
	// Private also permits addresses of private networks.
	Private bool
}

// Control is the Control of a net.Dialer. It fails with ErrAddress.
func (r AddressRule) Control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !r.Permits(to.Addr()) {
		return ErrAddress
	}
	return nil
}

// Permits reports whether an address may be connected to.
func (r AddressRule) Permits(address netip.Addr) bool {
	address = address.WithZone("").Unmap()
	if embedded, ok := embeddedIPv4(address); ok {
		address = embedded
	}
	switch {
	case r.Loopback:
		return address.IsLoopback()
	case !address.IsValid(), contains(neverPermitted, address), localNAT64.Contains(address) && contains(neverPermitted, lastIPv4(address)):
		return false
	case contains(privateNetworks, address):
		return r.Private
	default:
		return true
	}
}

// embeddedIPv4 returns the IPv4 address that a gateway sends packets for an IPv6
// address to.
func embeddedIPv4(address netip.Addr) (netip.Addr, bool) {
	b := address.As16()
	switch {
	case nat64.Contains(address), v4Compatible.Contains(address) && !address.IsLoopback() && !address.IsUnspecified():
		return lastIPv4(address), true
	case sixToFour.Contains(address):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	default:
		return netip.Addr{}, false
	}
}

// lastIPv4 returns the last four bytes of an IPv6 address.
func lastIPv4(address netip.Addr) netip.Addr {
	b := address.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

func contains(networks []netip.Prefix, address netip.Addr) bool {
	for _, network := range networks {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

//nolint:gochecknoglobals // only read
var (
	nat64        = netip.MustParsePrefix("64:ff9b::/96")
	v4Compatible = netip.MustParsePrefix("::/96")
	// localNAT64 is for the gateways of an organization (RFC 8215).
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour  = netip.MustParsePrefix("2002::/16")

	// neverPermitted are loopback, link-local addresses, those of metadata services,
	// and what is no address of a host.
	neverPermitted = prefixes(
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "168.63.129.16/32", "100.100.100.200/32", "224.0.0.0/4", "240.0.0.0/4",
		"::/127", "fe80::/10", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128", "ff00::/8", "2001::/32", "100::/64",
	)
	// privateNetworks are those of organizations, of carriers, and of documents and
	// tests.
	privateNetworks = prefixes(
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",
		"fc00::/7", "fec0::/10", "64:ff9b:1::/48", "2001:db8::/32",
	)
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}
