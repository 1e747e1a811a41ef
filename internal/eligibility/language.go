package eligibility

// Language is a language that reasons are explained in. The zero value is English.
type Language uint8

// The languages.
const (
	English Language = iota
	German
	French
	Spanish
	Italian
	Dutch
	Portuguese
	Japanese

	// LanguageCount is how many languages there are.
	LanguageCount = iota
)

// String returns the language's tag of BCP 47.
func (l Language) String() string {
	switch l {
	case German:
		return "de"
	case French:
		return "fr"
	case Spanish:
		return "es"
	case Italian:
		return "it"
	case Dutch:
		return "nl"
	case Portuguese:
		return "pt"
	case Japanese:
		return "ja"
	default:
		return "en"
	}
}
