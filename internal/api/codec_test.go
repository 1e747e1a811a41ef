package api_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// maxBodyBytes is the default limit of a request.
const maxBodyBytes = 1 << 20

// rawCodec sends bytes as they are.
type rawCodec struct{ encoding.CodecV2 }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	raw, _ := v.([]byte)
	return mem.BufferSlice{mem.SliceBuffer(raw)}, nil
}

func TestAMessageThatCannotBeReadIsRefusedWithAReason(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	const check, batch, health = eligibilityv1.EligibilityService_CheckEligibility_FullMethodName,
		eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName, "/grpc.health.v1.Health/Check"
	large := make([]byte, 0, 2*maxBodyBytes)
	for len(large) < maxBodyBytes {
		large = protowire.AppendString(protowire.AppendTag(large, 1, protowire.BytesType), strings.Repeat("x", 1000))
	}
	for name, row := range map[string]struct {
		method string
		wire   []byte
		fields []string
	}{
		"a question over the limit":     {check, large, []string{"message"}},
		"a batch over the limit":        {batch, large, []string{"message"}},
		"a health check over the limit": {health, large, []string{"message"}},
		"a malformed question":          {check, []byte{0x0a, 0x05, 'x'}, []string{"message"}},
		"a malformed batch":             {batch, []byte{0x0a, 0x05, 'x'}, []string{"message"}},
		"a malformed item":              {batch, []byte{0x0a, 0x02, 0x0a, 0x09}, []string{"message"}},
		"a malformed health check":      {health, []byte{0xff}, []string{"message"}},
		"half a million empty items":    {batch, bytes.Repeat([]byte{0x0a, 0x00}, maxBodyBytes/2), []string{"requests"}},
		"a mark that a caller sends":    {check, []byte(api.MarkTooLarge), []string{"message"}},
		"fields that are not known":     {batch, bytes.Repeat([]byte{0x78, 0x00}, 2*api.MaxBatch), []string{"requests"}},
	} {
		var resp eligibilityv1.CheckEligibilityResponse
		err := run.Conn.Invoke(t.Context(), row.method, row.wire, &resp, grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2(protocodec.Name)}))
		if status.Code(err) != codes.InvalidArgument || apitest.OutcomeOf(status.Convert(err)).Reason != "INVALID_ARGUMENT" {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(row.fields, apitest.ViolatedBy(err)); diff != "" {
			t.Errorf("%s: fields (-want +got):\n%s", name, diff)
		}
	}
}

func TestABatchBehindUnknownFieldsIsReadWhole(t *testing.T) {
	t.Parallel()
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	for range api.MaxBatch {
		batch.Requests = append(batch.Requests, apitest.Ask(apitest.CustomerA))
	}
	wire, err := proto.Marshal(batch)
	if err != nil {
		t.Fatal(err)
	}
	wire = append(bytes.Repeat([]byte{0x78, 0x00}, 500), wire...)
	read := new(api.Batch)
	if err := api.NewCodec(maxBodyBytes).Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, read); err != nil || len(read.Questions) != api.MaxBatch {
		t.Errorf("%d items, %v", len(read.Questions), err)
	}
}

// TestABatchOfTooManyItemsIsNotDecoded holds what a batch takes in memory before
// it is refused: half a million items would take sixty times its bytes.
//
//nolint:paralleltest // it measures the process
func TestABatchOfTooManyItemsIsNotDecoded(t *testing.T) {
	wire := mem.BufferSlice{mem.SliceBuffer(bytes.Repeat([]byte{0x0a, 0x00}, maxBodyBytes/2))}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read := new(api.Batch)
	if err := api.NewCodec(maxBodyBytes).Unmarshal(wire, read); err != nil || len(read.Questions) != api.MaxBatch+1 {
		t.Errorf("%d items, %v", len(read.Questions), err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 256<<10 {
		t.Errorf("%d bytes allocated", got)
	}
}
