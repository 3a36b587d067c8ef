/**
 * Guest code on XMM registers in the interpreter: the inner loop of a Mandelbrot set in scalar doubles, and
 * a copy of 64 KiB in pieces of 16 bytes. The name says how many instructions one iteration executes.
 */
import { MsrResult, type Segment, type VmHost } from "../core/backend.ts";
import { GuestMemory } from "../core/guest_memory.ts";
import { interpreter } from "../core/x86/backend.ts";

const host: VmHost = {
  readMsr: () => MsrResult.Unknown,
  writeMsr: () => MsrResult.Unknown,
  readPort: () => 0xffff_ffff,
  writePort: () => {},
  readMmio: (_vcpu, _gpa, data) => void data.fill(0xff),
  writeMmio: () => {},
  hypercall: () => 1,
  acknowledgeInterrupt: () => -1,
};

function flat(type: number): Segment {
  return {
    selector: 8,
    base: 0n,
    limit: 0xffff_ffff,
    type,
    s: true,
    dpl: 0,
    present: true,
    avl: false,
    l: false,
    db: true,
    g: true,
    unusable: false,
  };
}

/** A function that executes 32-bit code up to its HLT. */
function guest(code: string): () => void {
  const memory = new GuestMemory(0x10_0000);
  const vcpu = interpreter().createVm(memory, host).createVcpu();
  const data = flat(3);
  vcpu.setSystemRegisters({
    cs: flat(11),
    ds: data,
    es: data,
    ss: data,
    cr0: 0x11n,
    cr4: 0x600n,
  });
  memory.write(0x1000, Uint8Array.fromHex(code.replaceAll(/;.*$|\s/gm, "")));
  memory.view.setFloat64(0x2000, -0.5, true);
  memory.view.setFloat64(0x2008, 0.5, true);
  memory.view.setFloat64(0x2010, 4, true);
  vcpu.setRegisters({ rip: 0x1000n, rflags: 2n });
  const state = vcpu.save();
  return () => {
    vcpu.restore(state);
    while (vcpu.run(1000).reason !== "hlt");
  };
}

const mandelbrot = guest(`
  66 0F EF C0              ; pxor xmm0, xmm0
  66 0F EF C9              ; pxor xmm1, xmm1
  F2 0F 10 15 00 20 00 00  ; movsd xmm2, [0x2000]
  F2 0F 10 1D 08 20 00 00  ; movsd xmm3, [0x2008]
  F2 0F 10 3D 10 20 00 00  ; movsd xmm7, [0x2010]
  B9 00 00 01 00           ; mov ecx, 0x10000
  66 0F 28 E0              ; movapd xmm4, xmm0
  F2 0F 59 E0              ; mulsd xmm4, xmm0
  66 0F 28 E9              ; movapd xmm5, xmm1
  F2 0F 59 E9              ; mulsd xmm5, xmm1
  66 0F 28 F4              ; movapd xmm6, xmm4
  F2 0F 58 F5              ; addsd xmm6, xmm5
  66 0F 2E F7              ; ucomisd xmm6, xmm7
  77 1B                    ; ja out
  F2 0F 59 C8              ; mulsd xmm1, xmm0
  F2 0F 58 C9              ; addsd xmm1, xmm1
  F2 0F 58 CB              ; addsd xmm1, xmm3
  F2 0F 5C E5              ; subsd xmm4, xmm5
  F2 0F 58 E2              ; addsd xmm4, xmm2
  66 0F 28 C4              ; movapd xmm0, xmm4
  49                       ; dec ecx
  75 C7                    ; jnz
  F4                       ; out: hlt`);

const copy = guest(`
  BA 10 00 00 00           ; mov edx, 16
  BE 00 00 02 00           ; again: mov esi, 0x20000
  BF 00 00 04 00           ; mov edi, 0x40000
  B9 00 10 00 00           ; mov ecx, 0x1000
  F3 0F 6F 06              ; movdqu xmm0, [esi]
  66 0F 7F 07              ; movdqa [edi], xmm0
  83 C6 10                 ; add esi, 16
  83 C7 10                 ; add edi, 16
  49                       ; dec ecx
  75 EF                    ; jnz
  4A                       ; dec edx
  75 DD                    ; jnz again
  F4                       ; hlt`);

Deno.bench("Mandelbrot loop in scalar SSE2, 1.05 million instructions", () => {
  mandelbrot();
});

Deno.bench(
  "copy of 16 times 64 KiB with MOVDQU, 0.39 million instructions",
  () => {
    copy();
  },
);
