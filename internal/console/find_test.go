package console

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestFindCustomer(t *testing.T) {
	t.Parallel()
	const id, other = "a0000000-0000-4000-8000-000000000002", "70000000-0000-4000-8000-000000000001"
	for given, want := range map[string]error{
		id: nil, strings.ToUpper(id): nil, " {" + id + "} \n": nil, strings.ReplaceAll(id, "-", ""): nil,
		"Microsoft ID: " + id + ".":    nil,
		`"` + id + `"`:                 nil,
		id + " " + strings.ToUpper(id): nil,
		"https://partner.microsoft.com/commerce/customers/" + id + "/subscriptions/" + other:                                  nil,
		"https://partner.microsoft.com/en-us/dashboard/commerce2/customers/" + id + "/adminrelationships/" + other + "-" + id: nil,
		"https://partner.microsoft.com/dashboard/v2/customers/" + id + "?tenantId=" + other + "#" + other:                     nil,
		"partner.microsoft.com/commerce/customers/" + strings.ToUpper(id):                                                     nil,
		"https://api.partnercenter.microsoft.com/v1/customers/" + id + "/validationStatus?type=account":                       nil,
		"GET /v1/customers/" + id + "/qualifications":                                                                         nil,
		"https://admin.microsoft.com/Partner/BeginClientSession.aspx?CTID=" + id + "&CSDEST=o365admincenter":                  nil,
		"https://mail.example/?url=" + url.QueryEscape("https://partner.microsoft.com/commerce/customers/"+id+"/account"):     nil,
		"": errNothingGiven, " \n": errNothingGiven,
		"the customer": errNoID, id[1:]: errNoID, id + "0": errNoID, "x" + id: errNoID,
		"https://partner.microsoft.com/commerce/customers/list": errNoID,
		id + " " + other: errSeveralIDs,
		"/customers/" + id + "/x /customers/" + other:                errSeveralIDs,
		"https://partner.microsoft.com/dashboard?tenantId=" + id:     errNotCustomers,
		"https://partner.microsoft.com/accounts/" + id + "/" + other: errSeveralIDs,
		"https://x.example/?subscription_id=" + id:                   errNotCustomers,
		strings.Repeat("a", maxQuery+1):                              errTooLong,
		strings.Repeat("%25", maxQuery/3) + "\xff\x00":               errTooLong,
		strings.Repeat("customers/", maxQuery/10):                    errNoID,
		"\xff\xfe%zz%": errNoID,
	} {
		got, err := findCustomer(given)
		if !errors.Is(err, want) || want == nil && got.String() != id {
			t.Errorf("%.100q: %v, %v; want %v", given, got, err, want)
		}
	}
}

func FuzzFindCustomer(f *testing.F) {
	f.Add("https://partner.microsoft.com/commerce/customers/a0000000-0000-4000-8000-000000000002/subscriptions")
	f.Fuzz(func(t *testing.T, given string) {
		id, err := findCustomer(given)
		if err == nil && !strings.Contains(strings.ToLower(strings.ReplaceAll(unescapedTwice(given), "-", "")), strings.ReplaceAll(id.String(), "-", "")) {
			t.Errorf("%q is not in the text", id)
		}
	})
}

func unescapedTwice(s string) string {
	s = strings.TrimSpace(s)
	for range 2 {
		if plain, err := url.PathUnescape(s); err == nil {
			s = plain
		}
	}
	return s
}
