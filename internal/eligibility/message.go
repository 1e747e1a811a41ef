package eligibility

// Message is one sentence fit to show to the shop's customers and staff. It states
// what is so, not what to do: that is the remedy's part. In a language that is not
// defined, it is English.
func (r Reason) Message(in Language) string {
	row := r.Code
	if r.Code == ReasonAccountNotReady && !r.Blocks {
		row = notReadyAllowed
	}
	if r.Code > ReasonUndecidable {
		row = ReasonNone
	}
	if in >= LanguageCount {
		in = English
	}
	return messages[row][in]
}

// notReadyAllowed is the row of ReasonAccountNotReady if that does not block. No other
// message depends on whether its reason blocks.
const notReadyAllowed = ReasonUndecidable + 1

// messages is the catalogue: a row for each reason, a sentence for each language. They
// address nobody. Those in Portuguese are the same in Brazil and in Portugal.
//
//nolint:gochecknoglobals,gosmopolitan,misspell // a constant, in eight languages
var messages = [...][LanguageCount]string{
	ReasonNone: {},
	ReasonAccountAllowed: {
		English:    "Microsoft allows this customer to buy.",
		German:     "Microsoft erlaubt diesem Kunden den Kauf.",
		French:     "Microsoft autorise ce client à acheter.",
		Spanish:    "Microsoft permite a este cliente realizar compras.",
		Italian:    "Microsoft consente a questo cliente di acquistare.",
		Dutch:      "Microsoft staat aankopen door deze klant toe.",
		Portuguese: "A Microsoft permite que este cliente compre.",
		Japanese:   "Microsoft は、このお客様の購入を許可しています。",
	},
	ReasonAccountHasNoStatus: {
		English:    "Microsoft has no validation status on record for this customer, and a purchase needs none.",
		German:     "Bei Microsoft ist für diesen Kunden kein Validierungsstatus hinterlegt, und für einen Kauf ist keiner nötig.",
		French:     "Microsoft n'a enregistré aucun état de validation pour ce client, et aucun n'est requis pour un achat.",
		Spanish:    "Microsoft no tiene registrado ningún estado de validación de este cliente, y para comprar no hace falta ninguno.",
		Italian:    "Microsoft non ha registrato alcuno stato di convalida per questo cliente, e per un acquisto non ne serve alcuno.",
		Dutch:      "Microsoft heeft voor deze klant geen validatiestatus vastgelegd, en voor een aankoop is er geen nodig.",
		Portuguese: "Na Microsoft não consta nenhuma situação de validação deste cliente, e uma compra não exige nenhuma.",
		Japanese:   "Microsoft には、このお客様の検証状態が記録されていませんが、購入には必要ありません。",
	},
	ReasonAccountUnderReview: {
		English:    "Microsoft is still reviewing this customer's account.",
		German:     "Microsoft prüft das Konto dieses Kunden noch.",
		French:     "Microsoft examine encore le compte de ce client.",
		Spanish:    "Microsoft todavía está revisando la cuenta de este cliente.",
		Italian:    "Microsoft sta ancora esaminando l'account di questo cliente.",
		Dutch:      "Microsoft beoordeelt het account van deze klant nog.",
		Portuguese: "A conta deste cliente ainda está em análise na Microsoft.",
		Japanese:   "このお客様のアカウントは、現在も Microsoft による審査中です。",
	},
	ReasonAccountNotAllowed: {
		English:    "Microsoft does not allow this customer to buy.",
		German:     "Microsoft erlaubt diesem Kunden den Kauf nicht.",
		French:     "Microsoft n'autorise pas ce client à acheter.",
		Spanish:    "Microsoft no permite a este cliente realizar compras.",
		Italian:    "Microsoft non consente a questo cliente di acquistare.",
		Dutch:      "Microsoft staat aankopen door deze klant niet toe.",
		Portuguese: "A Microsoft não permite que este cliente compre.",
		Japanese:   "Microsoft は、このお客様の購入を許可していません。",
	},
	ReasonAccountUnknown: {
		English:    "Microsoft has not determined this customer's account status yet.",
		German:     "Microsoft hat den Kontostatus dieses Kunden noch nicht ermittelt.",
		French:     "Microsoft n'a pas encore déterminé l'état du compte de ce client.",
		Spanish:    "Microsoft aún no ha determinado el estado de la cuenta de este cliente.",
		Italian:    "Microsoft non ha ancora determinato lo stato dell'account di questo cliente.",
		Dutch:      "Microsoft heeft de accountstatus van deze klant nog niet bepaald.",
		Portuguese: "A Microsoft ainda não determinou a situação da conta deste cliente.",
		Japanese:   "Microsoft は、このお客様のアカウントの状態をまだ確定していません。",
	},
	ReasonAccountNotReady: {
		English:    "Microsoft has not validated this customer's account yet.",
		German:     "Microsoft hat das Konto dieses Kunden noch nicht validiert.",
		French:     "Microsoft n'a pas encore validé le compte de ce client.",
		Spanish:    "Microsoft aún no ha validado la cuenta de este cliente.",
		Italian:    "Microsoft non ha ancora convalidato l'account di questo cliente.",
		Dutch:      "Microsoft heeft het account van deze klant nog niet gevalideerd.",
		Portuguese: "A Microsoft ainda não validou a conta deste cliente.",
		Japanese:   "Microsoft は、このお客様のアカウントをまだ検証していません。",
	},
	notReadyAllowed: {
		English:    "Microsoft has not validated this customer's account yet, but a purchase is allowed.",
		German:     "Microsoft hat das Konto dieses Kunden noch nicht validiert, ein Kauf ist aber zulässig.",
		French:     "Microsoft n'a pas encore validé le compte de ce client, mais un achat est autorisé.",
		Spanish:    "Microsoft aún no ha validado la cuenta de este cliente, pero se permite comprar.",
		Italian:    "Microsoft non ha ancora convalidato l'account di questo cliente, ma un acquisto è consentito.",
		Dutch:      "Microsoft heeft het account van deze klant nog niet gevalideerd, maar een aankoop is toegestaan.",
		Portuguese: "A Microsoft ainda não validou a conta deste cliente, mas uma compra é permitida.",
		Japanese:   "Microsoft は、このお客様のアカウントをまだ検証していませんが、購入は許可されています。",
	},
	ReasonAccountStatusUnrecognized: {
		English:    "Microsoft reports an account status that is not recognized.",
		German:     "Microsoft meldet einen Kontostatus, der nicht erkannt wird.",
		French:     "Microsoft indique un état de compte qui n'est pas reconnu.",
		Spanish:    "Microsoft comunica un estado de la cuenta que no se reconoce.",
		Italian:    "Microsoft comunica uno stato dell'account che non viene riconosciuto.",
		Dutch:      "Microsoft meldt een accountstatus die niet wordt herkend.",
		Portuguese: "A Microsoft comunica uma situação da conta que não é reconhecida.",
		Japanese:   "Microsoft から返されたアカウントの状態を認識できません。",
	},
	ReasonAccountReviewExempt: {
		English:    "Microsoft is still reviewing this customer's account, but an order that sells nothing more is allowed.",
		German:     "Microsoft prüft das Konto dieses Kunden noch, eine Bestellung ohne zusätzlichen Verkauf ist aber zulässig.",
		French:     "Microsoft examine encore le compte de ce client, mais une commande sans vente supplémentaire est autorisée.",
		Spanish:    "Microsoft todavía está revisando la cuenta de este cliente, pero se permite un pedido sin ventas adicionales.",
		Italian:    "Microsoft sta ancora esaminando l'account di questo cliente, ma un ordine senza vendite aggiuntive è consentito.",
		Dutch:      "Microsoft beoordeelt het account van deze klant nog, maar een bestelling zonder extra verkoop is toegestaan.",
		Portuguese: "A conta deste cliente ainda está em análise na Microsoft, mas um pedido sem vendas adicionais é permitido.",
		Japanese:   "このお客様のアカウントは、現在も Microsoft による審査中ですが、追加の販売を伴わない注文は許可されています。",
	},
	ReasonQualificationApproved: {
		English:    "The customer holds the qualification that this offer requires.",
		German:     "Der Kunde besitzt die Qualifikation, die dieses Angebot voraussetzt.",
		French:     "Le client possède la qualification qu'exige cette offre.",
		Spanish:    "El cliente tiene la cualificación que exige esta oferta.",
		Italian:    "Il cliente possiede la qualifica richiesta da questa offerta.",
		Dutch:      "De klant beschikt over de kwalificatie die voor dit aanbod vereist is.",
		Portuguese: "O cliente possui a qualificação que esta oferta exige.",
		Japanese:   "このお客様は、このオファーに必要な資格をお持ちです。",
	},
	ReasonQualificationInReview: {
		English:    "Microsoft is still reviewing the qualification that this offer requires.",
		German:     "Microsoft prüft noch die Qualifikation, die dieses Angebot voraussetzt.",
		French:     "Microsoft examine encore la qualification qu'exige cette offre.",
		Spanish:    "Microsoft todavía está revisando la cualificación que exige esta oferta.",
		Italian:    "Microsoft sta ancora esaminando la qualifica richiesta da questa offerta.",
		Dutch:      "Microsoft beoordeelt nog de kwalificatie die voor dit aanbod vereist is.",
		Portuguese: "A qualificação que esta oferta exige ainda está em análise na Microsoft.",
		Japanese:   "このオファーに必要な資格は、現在も Microsoft による審査中です。",
	},
	ReasonQualificationDenied: {
		English:    "Microsoft denied the qualification that this offer requires.",
		German:     "Microsoft hat die Qualifikation abgelehnt, die dieses Angebot voraussetzt.",
		French:     "Microsoft a refusé la qualification qu'exige cette offre.",
		Spanish:    "Microsoft ha denegado la cualificación que exige esta oferta.",
		Italian:    "Microsoft ha negato la qualifica richiesta da questa offerta.",
		Dutch:      "Microsoft heeft de kwalificatie afgewezen die voor dit aanbod vereist is.",
		Portuguese: "A Microsoft recusou a qualificação que esta oferta exige.",
		Japanese:   "Microsoft は、このオファーに必要な資格を承認しませんでした。",
	},
	ReasonQualificationMissing: {
		English:    "The customer does not hold the qualification that this offer requires.",
		German:     "Der Kunde besitzt die Qualifikation nicht, die dieses Angebot voraussetzt.",
		French:     "Le client ne possède pas la qualification qu'exige cette offre.",
		Spanish:    "El cliente no tiene la cualificación que exige esta oferta.",
		Italian:    "Il cliente non possiede la qualifica richiesta da questa offerta.",
		Dutch:      "De klant beschikt niet over de kwalificatie die voor dit aanbod vereist is.",
		Portuguese: "O cliente não possui a qualificação que esta oferta exige.",
		Japanese:   "このお客様は、このオファーに必要な資格をお持ちではありません。",
	},
	ReasonQualificationUnrecognized: {
		English:    "Microsoft reports a status that is not recognized for the qualification that this offer requires.",
		German:     "Microsoft meldet für die Qualifikation, die dieses Angebot voraussetzt, einen Status, der nicht erkannt wird.",
		French:     "Pour la qualification qu'exige cette offre, Microsoft indique un état qui n'est pas reconnu.",
		Spanish:    "Para la cualificación que exige esta oferta, Microsoft comunica un estado que no se reconoce.",
		Italian:    "Per la qualifica richiesta da questa offerta, Microsoft comunica uno stato che non viene riconosciuto.",
		Dutch:      "Microsoft meldt voor de kwalificatie die voor dit aanbod vereist is, een status die niet wordt herkend.",
		Portuguese: "Para a qualificação que esta oferta exige, a Microsoft comunica uma situação que não é reconhecida.",
		Japanese:   "このオファーに必要な資格について、Microsoft から返された状態を認識できません。",
	},
	ReasonUndecidable: {
		English:    "Microsoft's answer about this customer is not available at the moment.",
		German:     "Die Antwort von Microsoft zu diesem Kunden ist derzeit nicht verfügbar.",
		French:     "La réponse de Microsoft concernant ce client n'est pas disponible pour le moment.",
		Spanish:    "La respuesta de Microsoft sobre este cliente no está disponible en este momento.",
		Italian:    "La risposta di Microsoft su questo cliente non è disponibile al momento.",
		Dutch:      "Het antwoord van Microsoft over deze klant is op dit moment niet beschikbaar.",
		Portuguese: "A resposta da Microsoft sobre este cliente não está disponível neste momento.",
		Japanese:   "このお客様についての Microsoft の回答は、現在取得できません。",
	},
}
