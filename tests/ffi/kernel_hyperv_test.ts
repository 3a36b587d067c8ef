/**
 * KVM's own Hyper-V with a real kernel: gates, exits and host access.
 */
import { assertEquals } from "@std/assert";
import type { CpuidEntry } from "../../core/backend.ts";
import type { KvmOptions } from "../../ffi/kvm_options.ts";
import {
  dword,
  Guest,
  HLT,
  kvmTest,
  movEax,
  movEcx,
  RDMSR,
  SPIN,
  WRMSR,
} from "./_kvm.ts";

const OS_ID = 0x4000_0000;
const CONTROL = 0x4000_00f1;
const STATUS = 0x4000_00f2;
const SEND = 0x4000_00f3;
const RECEIVE = 0x4000_00f4;
const PENDING = 0x4000_00f5;
const OPTIONS = 0x4000_00ff;
const RESET = 0x4000_0003;
const CRASH_P0 = 0x4000_0100;
const VMMCALL = [0x0f, 0x01, 0xd9];
const XOR_EDX = [0x31, 0xd2];

function leaves(debugging: boolean): CpuidEntry[] {
  const none = { ebx: 0, ecx: 0, edx: 0 };
  return [
    {
      leaf: 0x4000_0000,
      eax: 0x4000_0082,
      ebx: 0x7263_694d,
      ecx: 0x666f_736f,
      edx: 0x7648_2074,
    },
    { leaf: 0x4000_0001, eax: 0x3123_7648, ...none },
    { leaf: 0x4000_0003, eax: 0x1020, ebx: 0x800, ecx: 0, edx: 0x80a },
    { leaf: 0x4000_0082, eax: debugging ? 2 : 0, ...none },
  ];
}

function start(
  debugging: boolean,
  options: KvmOptions["hyperv"] = {},
): { guest: Guest; seen: unknown[] } {
  const guest = new Guest({ mode: "kernel", ...options });
  const seen: unknown[] = [];
  guest.vcpu.setCpuid([
    ...guest.backend.supportedCpuid(),
    ...leaves(debugging),
  ]);
  guest.vm.hypervHandler = {
    syndbg: (...values) => {
      seen.push(values);
      return seen.length === 2 ? 1n : 0x0003_0004n;
    },
    hypercall: (...values) => {
      seen.push(values);
      return 0x0000_0007_0000_001bn;
    },
    reset: () => {
      seen.push("reset");
      guest.vcpu.kick();
    },
    crash: (parameters) => seen.push(parameters),
  };
  return { guest, seen };
}

/** WRMSR of 32 bits in 32-bit code. */
function write(index: number, value: number): number[] {
  return [...movEcx(index), ...movEax(value), ...XOR_EDX, ...WRMSR];
}

/** RDMSR, with EAX moved to another register. */
function read(index: number, move: number): number[] {
  return [...movEcx(index), ...RDMSR, 0x89, move];
}

const TO_EBX = 0xc3;
const TO_ESI = 0xc6;
const TO_EDI = 0xc7;

kvmTest("a guest sends and receives by MSR", { mode: "kernel" }, () => {
  const { guest, seen } = start(true);
  using _ = guest;
  guest.vcpu.setMsr(OPTIONS, 4n);
  guest.enter(
    "protected",
    write(SEND, 0x1000),
    write(RECEIVE, 0x2000),
    write(PENDING, 0x3000),
    write(CONTROL, 5 << 16 | 1),
    read(STATUS, TO_EBX),
    write(CONTROL, 2),
    read(STATUS, TO_ESI),
    read(OPTIONS, TO_EDI),
    HLT,
  );
  assertEquals(guest.run(), "hlt");
  assertEquals(seen, [
    [0, PENDING, 0n, 0x1000n, 0x2000n, 0x3000n],
    [0, CONTROL, 0x5_0001n, 0x1000n, 0x2000n, 0x3000n],
    [0, CONTROL, 2n, 0x1000n, 0x2000n, 0x3000n],
  ]);
  const { rbx, rsi, rdi } = guest.vcpu.getRegisters();
  assertEquals([rbx, rsi, rdi], [1n, 0x3_0004n, 4n]);
  assertEquals(guest.host.log, []);
});

kvmTest("signals at any moment cost no STATUS", { mode: "kernel" }, () => {
  const { guest } = start(true);
  using _ = guest;
  let sent = 0;
  guest.vm.hypervHandler!.syndbg = () => BigInt(++sent);
  guest.enter(
    "protected",
    [0x31, 0xdb], // xor ebx, ebx
    [0x31, 0xff], // xor edi, edi
    // next:
    [0x43], // inc ebx
    write(CONTROL, 1),
    [...movEcx(STATUS), ...RDMSR],
    [0x39, 0xd8], // cmp eax, ebx
    [0x74, 0x01], // je good
    [0x47], // inc edi
    // good:
    [0x81, 0xfb, ...dword(20_000)], // cmp ebx, 20000
    [0x75, 0xdd], // jne next
    HLT,
  );
  for (let slice = 0;; slice++) {
    const { reason } = guest.vcpu.run(0.02 + slice % 7 * 0.03);
    if (reason === "hlt") break;
    assertEquals(reason, "interrupted");
  }
  assertEquals([sent, guest.vcpu.getRegisters().rdi], [20_000, 0n]);
});

kvmTest("without its CPUID bit no debug exit comes", { mode: "kernel" }, () => {
  const { guest, seen } = start(false);
  using _ = guest;
  guest.handler(13, "hlt");
  guest.enter("real", movEcx(CONTROL, 16), movEax(2, 16), WRMSR, HLT);
  assertEquals(guest.run(), "hlt");
  assertEquals([seen, guest.host.log], [[], ["out 66 1 d"]]);
});

kvmTest(
  "debug hypercalls come if OPTIONS lets them",
  { mode: "kernel" },
  () => {
    for (const options of [4n, 0n]) {
      const { guest, seen } = start(true);
      using _ = guest;
      guest.vcpu.setMsr(OPTIONS, options);
      guest.enter(
        "protected",
        write(OS_ID, 0x0001_0001),
        movEax(0x1_006b), // RESET, fast
        XOR_EDX,
        movEcx(0x3),
        [0x31, 0xdb], // xor ebx, ebx
        [0x31, 0xff], // xor edi, edi
        [0xbe, 9, 0, 0, 0], // mov esi, 9
        VMMCALL,
        HLT,
      );
      assertEquals(guest.run(), "hlt");
      const { rax, rdx } = guest.vcpu.getRegisters();
      if (options === 0n) assertEquals([seen, rax, rdx], [[], 8n, 0n]);
      else {
        assertEquals(seen, [[0, 0x1_006bn, 3n, 9n]]);
        assertEquals([rax, rdx], [0x1bn, 7n]);
      }
    }
  },
);

kvmTest("a crash and a reset are told", { mode: "kernel" }, () => {
  const { guest, seen } = start(true);
  using _ = guest;
  guest.enter(
    "protected",
    ...[0, 1, 2, 3, 4].map((n) => write(CRASH_P0 + n, 10 + n)),
    [...movEcx(CRASH_P0 + 5), ...movEax(0)],
    [0xba, 0, 0, 0, 0x80, ...WRMSR], // mov edx, CRASH_NOTIFY
    write(RESET, 1),
    SPIN,
  );
  assertEquals(guest.vcpu.run(1000).reason, "interrupted");
  assertEquals(seen, [[10n, 11n, 12n, 13n, 14n], "reset"]);
});

kvmTest("the host reads and writes without exits", { mode: "kernel" }, () => {
  const { guest, seen } = start(true);
  using _ = guest;
  const { vcpu } = guest;
  assertEquals(vcpu.setMsr(CONTROL, 0x1234n), true);
  assertEquals(vcpu.getMsr(CONTROL), 0x1234n);
  assertEquals(vcpu.setMsr(OPTIONS, 4n), true);
  vcpu.reset();
  assertEquals([vcpu.getMsr(CONTROL), vcpu.getMsr(OPTIONS)], [0x1234n, 4n]);
  const state = structuredClone(vcpu.save());
  const other = start(true);
  using __ = other.guest;
  other.guest.vcpu.restore(state);
  assertEquals(other.guest.vcpu.getMsr(CONTROL), 0x1234n);
  assertEquals(seen, []);
});

kvmTest("enforced CPUID denies what it does not offer", {
  mode: "kernel",
}, () => {
  const { guest } = start(true, { enforceCpuid: true });
  using _ = guest;
  guest.handler(13, "hlt");
  // VP_INDEX needs a bit of leaf 3.
  guest.enter("real", movEcx(0x4000_0002, 16), RDMSR, HLT);
  assertEquals(guest.run(), "hlt");
  assertEquals(guest.host.log, ["out 66 1 d"]);
  guest.enter("real", movEcx(STATUS, 16), RDMSR, HLT);
  assertEquals(guest.run(), "hlt");
  assertEquals(guest.host.log.length, 1);
});
