/**
 * What one access costs from the partition inwards: SynDbg MSRs, an MSR of nobody, hypercall
 * dispatch; and what a million reads leave on the heap.
 */
import { GuestMemory } from "../core/guest_memory.ts";
import { type HypercallFrame, MsrResult } from "../core/backend.ts";
import { HvMsr } from "../hyperv/defs/msr.ts";
import { Partition } from "../hyperv/partition.ts";
import { memoryPair } from "../hyperv/transports/memory_pair.ts";

const memory = new GuestMemory(0x4_0000, 0);
const [wire, peer] = memoryPair();
const partition = new Partition({
  memory,
  clock: { tscFrequency: 1_000_000_000, readTsc: () => 0n },
  syndbg: { transport: wire },
});
const value = new Uint32Array(2);
const packet = new Uint8Array(64).fill(1);
const frame: HypercallFrame = {
  vcpu: 0,
  longMode: true,
  protectedMode: true,
  cpl: 0,
  gpr: new Uint32Array(32),
};

function write(index: number, low: number): void {
  if (partition.writeMsr(0, index, low, 0) !== MsrResult.Handled) {
    throw new Error(`Cannot write MSR: 0x${index.toString(16)}`);
  }
}

write(HvMsr.GuestOsId, 1);
write(HvMsr.SyndbgSendBuffer, 0x1000);
write(HvMsr.SyndbgRecvBuffer, 0x2000);
write(HvMsr.SyndbgPendingBuffer, 0x3000);

/** A thousand reads: the harness's own cost does not count then. */
function read(index: number): number {
  let sum = 0;
  for (let n = 0; n < 1000; n++) {
    sum += partition.readMsr(0, index, value) + value[0]!;
  }
  return sum;
}

Deno.bench("RDMSR SynDbg STATUS, 1000 times", () => {
  read(HvMsr.SyndbgStatus);
});

Deno.bench("WRMSR SynDbg STATUS, 1000 times", () => {
  for (let n = 0; n < 1000; n++) {
    partition.writeMsr(0, HvMsr.SyndbgStatus, n, 0);
  }
});

Deno.bench("RDMSR of an MSR that nobody knows, 1000 times", () => {
  read(0x4000_0150);
});

Deno.bench("RDMSR outside the synthetic range, 1000 times", () => {
  read(0xc000_0080);
});

Deno.bench("WRMSR SynDbg CONTROL: send 64 bytes", () => {
  partition.writeMsr(0, HvMsr.SyndbgControl, 64 << 16 | 1, 0);
  peer.receive();
});

Deno.bench("WRMSR SynDbg CONTROL: receive 64 bytes", () => {
  peer.send(packet);
  partition.writeMsr(0, HvMsr.SyndbgControl, 2, 0);
});

Deno.bench("WRMSR SynDbg CONTROL: receive with nothing there", () => {
  partition.writeMsr(0, HvMsr.SyndbgControl, 2, 0);
});

Deno.bench("hypercall dispatch (long spin wait), 1000 times", () => {
  for (let n = 0; n < 1000; n++) {
    frame.gpr[2] = 8;
    partition.hypercall(frame);
  }
});

// The heap: once the code is optimised, reads must leave nothing.
for (let n = 0; n < 2000; n++) read(HvMsr.SyndbgStatus);
const before = Deno.memoryUsage().heapUsed;
for (let n = 0; n < 1000; n++) read(HvMsr.SyndbgStatus);
const after = Deno.memoryUsage().heapUsed;
console.log(
  `heap delta of 1000000 reads of STATUS: ${after - before} bytes`,
);
