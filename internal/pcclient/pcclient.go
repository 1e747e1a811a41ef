// Package pcclient asks Microsoft Partner Center the two questions that decide
// whether a customer may buy: the account validation status and the
// qualifications. It gets and renews the tokens for them.
//
// The far side is treated as hostile: bodies are bounded and read strictly,
// redirects are never followed, and no free text of Partner Center
// reaches an error or a log.
package pcclient
