/** Several vCPUs of KVM, each on a thread of its own, in one partition. */
import { assert, assertEquals } from "@std/assert";
import { loadImage } from "../../core/loaders/load_image.ts";
import { openKvm } from "../../ffi/kvm_backend_unsafe.ts";
import { createGuestMachine } from "../../hyperv/guest_machine.ts";
import { memoryPair } from "../../hyperv/transports/memory_pair.ts";
import {
  CLI,
  dword,
  HLT,
  kvmTest,
  MODES,
  movEax,
  movEcx,
  SPIN,
  WRMSR,
} from "./_kvm.ts";

const CONTROL = 0x4000_00f1;
const SEND = 0x4000_00f3;
const BUFFER = 0x3000;
const DONE = 0x5000;
const START = 0x7c00;
/** Where the second vCPU starts: its startup IPI's vector times 4096. */
const SECOND = 0x8000;
const PACKETS = 200;
const XOR_EDX = [0x31, 0xd2];

/** mov dword [address], value: in 32-bit code. */
function store(address: number, value: number): number[] {
  return [0xc7, 0x05, ...dword(address), ...dword(value)];
}

/** Code that the first vCPU starts the second with: INIT, then startup. */
const START_SECOND = [
  ...store(0xfee0_0310, 1 << 24),
  ...store(0xfee0_0300, 0x4500),
  ...store(0xfee0_0300, 0x4600 | SECOND >> 12),
];

/** Sends packets of 8 bytes, in 32-bit code. */
const SEND_MANY = [
  ...[0xbe, ...dword(PACKETS)], // mov esi, PACKETS
  ...movEcx(CONTROL),
  ...movEax(8 << 16 | 1),
  ...XOR_EDX,
  ...WRMSR,
  ...[0x4e, 0x75, 0xef], // dec esi; jnz to mov ecx
];

/** The same in 16-bit code. */
const SEND_MANY_16 = [
  ...[0x66, 0xbe, ...dword(PACKETS)],
  ...movEcx(CONTROL, 16),
  ...movEax(8 << 16 | 1, 16),
  ...[0x66, ...XOR_EDX],
  ...WRMSR,
  ...[0x66, 0x4e, 0x75, 0xeb],
];

function machine(
  mode: "user" | "kernel",
  first: readonly number[],
  second: readonly number[],
): ReturnType<typeof createGuestMachine> & { received: () => number } {
  const [transport, peer] = memoryPair();
  let received = 0;
  peer.onActivity = () => {
    while (peer.receive() !== undefined) received++;
  };
  const guest = createGuestMachine({
    backend: openKvm({ hyperv: { mode } }),
    memorySize: 0x20_0000,
    cpus: 2,
    syndbg: { transport },
  });
  loadImage(guest.memory, guest.machine.vcpus[0]!, new Uint8Array(first), {
    address: START,
    mode: "protected",
  });
  guest.memory.write(SECOND, new Uint8Array(second));
  return { ...guest, received: () => received };
}

for (const mode of MODES) {
  kvmTest(
    "debug commands of two vCPUs come one after the other",
    { mode },
    async () => {
      const guest = machine(mode, [
        ...[...movEcx(SEND), ...movEax(BUFFER), ...XOR_EDX, ...WRMSR],
        ...START_SECOND,
        ...SEND_MANY,
        // cmp byte [DONE], 1; jne to it
        ...[0x80, 0x3d, ...dword(DONE), 1, 0x75, 0xf7],
        CLI,
        HLT,
      ], [
        ...SEND_MANY_16,
        // lock inc byte [DONE]
        ...[0xf0, 0xfe, 0x06, DONE & 255, DONE >> 8],
        CLI,
        HLT,
      ]);
      try {
        const outcome = await guest.machine.run({ timeout: 20_000 });
        assertEquals(outcome, { kind: "halted" });
        assertEquals(guest.received(), 2 * PACKETS);
      } finally {
        guest.machine.close();
      }
    },
  );

  kvmTest("the event loop lives while two vCPUs spin", { mode }, async () => {
    const guest = machine(mode, [...START_SECOND, ...SPIN], [...SPIN]);
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    try {
      assertEquals(await guest.machine.run({ timeout: 300 }), {
        kind: "timeout",
      });
      assert(ticks > 2, `${ticks}`);
      // Both have been there.
      assertEquals(
        guest.machine.vcpus.map((vcpu) => Number(vcpu.getRegisters().rip)),
        [START + START_SECOND.length, 0],
      );
    } finally {
      clearInterval(timer);
      guest.machine.close();
    }
  });
}
