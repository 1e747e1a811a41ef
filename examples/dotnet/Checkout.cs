using System.Globalization;
using Eligibilityd.Eligibility.V1;
using Google.Protobuf.WellKnownTypes;
using Google.Rpc;
using Grpc.Core;
using Grpc.Net.Client;
using Grpc.Net.Client.Configuration;

// Every address of the target gets its share of the questions. With TLS, the credentials
// are ChannelCredentials.SecureSsl, and the token is sent by CallCredentials.
using var channel = GrpcChannel.ForAddress(
    Environment.GetEnvironmentVariable("ELIGIBILITY_TARGET") ?? "dns:///localhost:9090",
    new GrpcChannelOptions
    {
        Credentials = ChannelCredentials.Insecure,
        ServiceConfig = new ServiceConfig { LoadBalancingConfigs = { new RoundRobinConfig() } },
    });
var gate = new PurchaseGate(new EligibilityService.EligibilityServiceClient(channel));

var customer = args[0];
var shown = await gate.CheckAsync(customer, Segment.Commercial, CultureInfo.CurrentUICulture);
foreach (var reason in shown.Answer?.Reasons ?? [])
{
    Console.WriteLine(reason.Message);
}
if (shown.Outcome != Outcome.Allowed)
{
    Console.WriteLine(shown.Failure ?? "blocked");
    return shown.Outcome == Outcome.Blocked ? 3 : 4;
}

// The order step: nothing older than what the customer was shown decides. The Timestamp is
// passed on as it is, or stored as seconds and nanoseconds.
var order = await gate.CheckAsync(customer, Segment.Commercial, CultureInfo.CurrentUICulture, shown.Answer!.EvidenceTime);
Console.WriteLine(order.Outcome == Outcome.Allowed ? "sold" : order.Failure ?? "blocked");
return order.Outcome switch { Outcome.Allowed => 0, Outcome.Blocked => 3, _ => 4 };

/// <summary>What a check found out. Its default permits no sale.</summary>
public enum Outcome { Undecided, Blocked, Allowed }

/// <param name="Failure">The reason of an error, if the outcome is undecided.</param>
public sealed record Verdict(Outcome Outcome, CheckEligibilityResponse? Answer, string? Failure);

/// <summary>Asks eligibilityd whether a customer may buy.</summary>
public sealed class PurchaseGate(EligibilityService.EligibilityServiceClient client)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    public async Task<Verdict> CheckAsync(string customer, Segment segment, CultureInfo language, Timestamp? minEvidenceTime = null)
    {
        var request = new CheckEligibilityRequest { CustomerId = customer, Segment = segment, MinEvidenceTime = minEvidenceTime };
        var headers = new Metadata { { "accept-language", language.Name } }; // of the shop's customer
        var deadline = DateTime.UtcNow + Patience;
        while (true)
        {
            try
            {
                var answer = await client.CheckEligibilityAsync(request, headers, deadline);
                if (!IsAbout(answer, customer))
                {
                    return new Verdict(Outcome.Undecided, null, "UNKNOWN");
                }
                return answer.Decision switch
                {
                    Decision.Allowed => new Verdict(Outcome.Allowed, answer, null),
                    Decision.Blocked => new Verdict(Outcome.Blocked, answer, null),
                    _ => new Verdict(Outcome.Undecided, null, "UNKNOWN"),
                };
            }
            catch (RpcException error)
            {
                // An error is not a "no". The service says whether, and when, asking again helps.
                var status = error.GetRpcStatus();
                var reason = status?.GetDetail<ErrorInfo>()?.Reason ?? error.StatusCode.ToString();
                var pause = status?.GetDetail<RetryInfo>()?.RetryDelay?.ToTimeSpan();
                if (pause is null || DateTime.UtcNow + pause >= deadline)
                {
                    return new Verdict(Outcome.Undecided, null, reason);
                }
                await Task.Delay(pause.Value + TimeSpan.FromMilliseconds(Random.Shared.Next(50, 100)));
            }
        }
    }

    // Whether an answer is about the customer that was asked, in any form of its ID.
    private static bool IsAbout(CheckEligibilityResponse answer, string customer)
    {
        static string Canonical(string id) => string.Concat(id.Where(char.IsAsciiHexDigit)).ToLowerInvariant();
        var about = Canonical(answer.CustomerId);
        return about != "" && about == Canonical(customer);
    }
}
