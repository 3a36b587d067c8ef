import { assertEquals } from "@std/assert";
import { HvMsr } from "../../hyperv/defs/msr.ts";
import { formatTrace, traceJson } from "../../hyperv/trace.ts";
import {
  type Bench,
  bench,
  bytes,
  identify,
  rdmsr,
  vmcall,
  wrmsr,
} from "./_partition.ts";

function traced(
  options: Parameters<typeof bench>[0] = {},
): Bench & { lines: string[]; json: string[] } {
  const lines: string[] = [];
  const json: string[] = [];
  const b = bench({
    ...options,
    trace: (event) => {
      lines.push(formatTrace(event));
      json.push(traceJson(event));
    },
  });
  return { ...b, lines, json };
}

Deno.test("SynDbg accesses are traced as the kernel does, a read after its value is known", () => {
  const { partition, lines, peer } = traced({ vcpus: 2 });
  peer.send(bytes("abc"));
  wrmsr(partition, HvMsr.SyndbgRecvBuffer, 0xf_edcb_a987_6000n, 1);
  wrmsr(partition, HvMsr.SyndbgRecvBuffer, 0x6000n);
  wrmsr(partition, HvMsr.SyndbgControl, 2n);
  rdmsr(partition, HvMsr.SyndbgStatus);
  assertEquals(lines, [
    "kvm_hv_syndbg_set_msr: vcpu_id 1 vp_index 1 msr 0x400000f4 data 0xfedcba9876000",
    "kvm_hv_syndbg_set_msr: vcpu_id 0 vp_index 0 msr 0x400000f4 data 0x6000",
    "kvm_hv_syndbg_set_msr: vcpu_id 0 vp_index 0 msr 0x400000f1 data 0x2",
    "kvm_hv_syndbg_get_msr: vcpu_id 0 vp_index 0 msr 0x400000f2 data 0x30004",
  ]);
});

Deno.test("accesses that fault are marked", () => {
  const { partition, lines } = traced({ mode: "none" });
  rdmsr(partition, HvMsr.SyndbgOptions);
  wrmsr(partition, HvMsr.SyndbgControl, 1n);
  assertEquals(lines, [
    "kvm_hv_syndbg_get_msr: vcpu_id 0 vp_index 0 msr 0x400000ff data 0x0 #GP",
    "kvm_hv_syndbg_set_msr: vcpu_id 0 vp_index 0 msr 0x400000f1 data 0x1 #GP",
  ]);
});

Deno.test("the host's own access and other MSRs leave no trace", () => {
  const { partition, lines } = traced();
  partition.hostReadMsr(0, HvMsr.SyndbgStatus);
  partition.hostWriteMsr(0, HvMsr.SyndbgControl, 1n);
  rdmsr(partition, HvMsr.VpIndex);
  assertEquals(lines, []);
});

Deno.test("hypercalls are traced with their fields and result", () => {
  const { partition, lines } = traced({ mode: "hypercall" });
  identify(partition);
  const input = 0x6an | 3n << 17n | 5n << 32n | 6n << 48n;
  vmcall(partition, input, 0x1000n, 0xffff_ffff_ffff_fff8n);
  vmcall(partition, 0x1_0069n, 0x8765_4321_0fed_cba9n, 1n);
  vmcall(partition, 0x03n | 2n << 32n, 0x1000n, 0n);
  assertEquals(lines, [
    "kvm_hv_hypercall: code 0x6a slow var_cnt 0x3 rep_cnt 0x5 idx 0x6 in 0x1000 out 0xfffffffffffffff8",
    "kvm_hv_hypercall_done: result 0x5",
    "kvm_hv_hypercall: code 0x69 fast var_cnt 0x0 rep_cnt 0x0 idx 0x0 in 0x876543210fedcba9 out 0x1",
    "kvm_hv_hypercall_done: result 0x5",
    "kvm_hv_hypercall: code 0x3 slow var_cnt 0x0 rep_cnt 0x2 idx 0x0 in 0x1000 out 0x0",
    "kvm_hv_hypercall_done: result 0x200000000",
  ]);
});

Deno.test("a call that has to be made again has no result yet", () => {
  const { partition, memory, lines } = traced({ mode: "hypercall" });
  identify(partition);
  memory.writeU32(0x1004, 1);
  memory.writeU32(0x1008, 10);
  assertEquals(vmcall(partition, 0x6an, 0x1000n, 0x2000n), "retry");
  assertEquals(lines.length, 1);
});

Deno.test("as JSON each event is one object, 64-bit values as text", () => {
  const { partition, json } = traced();
  rdmsr(partition, HvMsr.SyndbgStatus);
  identify(partition);
  vmcall(partition, 0x02n, 0x1000n, 0xffff_ffff_ffff_fff8n);
  assertEquals(json.map((line) => JSON.parse(line)), [
    {
      event: "kvm_hv_syndbg_get_msr",
      vcpu_id: 0,
      vp_index: 0,
      msr: "0x400000f2",
      data: "0x0",
      fault: false,
    },
    {
      event: "kvm_hv_hypercall",
      vcpu_id: 0,
      code: 2,
      fast: false,
      var_cnt: 0,
      rep_cnt: 0,
      idx: 0,
      in: "0x1000",
      out: "0xfffffffffffffff8",
    },
    {
      event: "kvm_hv_hypercall_done",
      vcpu_id: 0,
      result: "0x0",
      fault: false,
    },
  ]);
});

Deno.test("tracing can be turned off and on", () => {
  const { partition, lines } = traced();
  partition.setTrace(undefined);
  rdmsr(partition, HvMsr.SyndbgStatus);
  assertEquals(lines, []);
  partition.setTrace((event) => lines.push(event.name));
  rdmsr(partition, HvMsr.SyndbgStatus);
  assertEquals(lines, ["kvm_hv_syndbg_get_msr"]);
});
