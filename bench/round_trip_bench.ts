/**
 * A SynDbg round trip on each backend: the guest's write of CONTROL, a datagram to a peer in this process and one back,
 * the pending byte seen by the guest, and its receive.
 */
import { loadImage } from "../core/loaders/load_image.ts";
import { interpreter } from "../core/x86/backend.ts";
import { openKvm, probeKvm } from "../ffi/kvm_backend_unsafe.ts";
import type { Backend } from "../core/backend.ts";
import { createGuestMachine } from "../hyperv/guest_machine.ts";
import { connectUdp } from "../hyperv/transports/udp_node.ts";
import { DemoPeer } from "../cli/demo_peer.ts";

const TRIPS = 200;
const CODE = 0x7c00;
const SEND = 0x3000;
const RECEIVE = 0x4000;
const PENDING = 0x5000;

const dword = (value: number): number[] =>
  [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);
/** mov ecx, msr; mov eax, value; xor edx, edx; wrmsr: 32-bit code. */
const wrmsr = (msr: number, value: number): number[] => [
  ...[0xb9, ...dword(0x4000_0000 + msr), 0xb8, ...dword(value)],
  ...[0x31, 0xd2, 0x0f, 0x30],
];

const SEND_ONE = wrmsr(0xf1, 64 << 16 | 1);
const WAIT = [0xf3, 0x90, 0x80, 0x3d, ...dword(PENDING), 0];
const RECEIVE_ONE = wrmsr(0xf1, 2);
const TRIP = [
  ...SEND_ONE,
  ...[...WAIT, 0x74, -(WAIT.length + 2) & 255],
  ...RECEIVE_ONE,
];
const GUEST = [
  ...wrmsr(0xf3, SEND),
  ...wrmsr(0xf4, RECEIVE),
  ...wrmsr(0xf5, PENDING),
  ...[0xbe, ...dword(TRIPS)], // mov esi, TRIPS
  ...TRIP,
  ...[0x4e, 0x0f, 0x85, ...dword(-(TRIP.length + 7))],
  ...[0xfa, 0xf4],
];

// One pair for all: sockets are closed some time after close(), and there are many iterations.
const peer = await DemoPeer.start();
const transport = await connectUdp("127.0.0.1", peer.port);

async function trips(backend: Backend): Promise<void> {
  const { machine, memory } = createGuestMachine({
    backend,
    memorySize: 4 * 2 ** 20,
    syndbg: { transport },
  });
  try {
    loadImage(memory, machine.vcpus[0]!, new Uint8Array(GUEST), {
      address: CODE,
      mode: "protected",
    });
    const { kind } = await machine.run({ timeout: 30_000 });
    if (kind !== "halted") throw new Error(kind);
  } finally {
    machine.close();
  }
}

Deno.bench(`${TRIPS} round trips, interpreter`, () => trips(interpreter()));
const { available, reason } = probeKvm({ hyperv: { mode: "user" } });
if (!available) console.log(`Skipped: round trips on KVM: ${reason}`);
Deno.bench({
  name: `${TRIPS} round trips, KVM`,
  ignore: !available,
  fn: () => trips(openKvm({ hyperv: { mode: "user" } })),
});
