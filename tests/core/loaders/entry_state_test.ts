/**
 * Loaded images executed by the interpreter: what the loader set up must carry a guest that reloads
 * its segments, uses its stack and reads what it was given.
 */
import { assertEquals } from "@std/assert";
import { GuestMemory } from "../../../core/guest_memory.ts";
import {
  loadImage,
  type LoadOptions,
} from "../../../core/loaders/load_image.ts";
import { Machine, type MachineOutcome } from "../../../core/machine.ts";
import { interpreter } from "../../../core/x86/backend.ts";
import { concat, elf, multibootHeader } from "./_images.ts";

async function run(
  image: Uint8Array,
  options: LoadOptions = {},
): Promise<MachineOutcome> {
  const memory = new GuestMemory(0x40_0000);
  const machine = new Machine({ backend: interpreter(), memory });
  loadImage(memory, machine.vcpus[0]!, image, options);
  const outcome = await machine.run({ timeout: 5000 });
  machine.close();
  return outcome;
}

/** mov al, value; out 0xf4, al; jmp $ */
function exit(value: number): number[] {
  return [0xb0, value, 0xe6, 0xf4, 0xeb, 0xfe];
}

/** mov ax, 0x10; mov ds/es/ss/fs/gs, ax: the data segment from the GDT. */
const RELOAD_DATA = [
  ...[0x66, 0xb8, 0x10, 0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0x8e, 0xe0],
  ...[0x8e, 0xe8],
];

const PROTECTED = [
  ...RELOAD_DATA,
  // push 8; call +0; add dword [esp], 5; retf: the code segment from the GDT
  ...[0x6a, 8, 0xe8, 0, 0, 0, 0, 0x83, 0x04, 0x24, 5, 0xcb],
  ...exit(0x11),
];

const LONG = [
  ...RELOAD_DATA,
  // push 8; call +0; add qword [rsp], 7; retfq
  ...[0x6a, 8, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0x04, 0x24, 7, 0x48, 0xcb],
  // mov rbx, 1 << 32; bt rbx, 32; jnc to the exit with 0
  ...[0x48, 0xbb, 0, 0, 0, 0, 1, 0, 0, 0, 0x48, 0x0f, 0xba, 0xe3, 32],
  ...[0x73, 6],
  ...exit(0x12),
  ...exit(0),
];

Deno.test("A flat image runs in real mode, also above 64 KiB", async () => {
  const code = new Uint8Array([
    // push ax; pop bx; mov ds, bx
    ...[0x50, 0x5b, 0x8e, 0xdb],
    ...exit(0x10),
  ]);
  for (const address of [0x7c00, 0x2_0000]) {
    assertEquals(await run(code, { address }), { kind: "exit", code: 0x21 });
  }
});

Deno.test("A flat image runs in protected and in long mode", async () => {
  assertEquals(
    await run(new Uint8Array(PROTECTED), { mode: "protected" }),
    { kind: "exit", code: 0x23 },
  );
  assertEquals(
    await run(new Uint8Array(LONG), { mode: "long" }),
    { kind: "exit", code: 0x25 },
  );
});

Deno.test("ELF32 runs in protected mode, ELF64 in long mode", async () => {
  const part = (code: readonly number[]): {
    address: number;
    data: Uint8Array;
    size: number;
  } => ({ address: 0x20_0000, data: new Uint8Array(code), size: 0x2000 });
  assertEquals(
    await run(elf(32, 0x20_0000, [part(PROTECTED)])),
    { kind: "exit", code: 0x23 },
  );
  assertEquals(
    await run(elf(64, 0x20_0000, [part(LONG)])),
    { kind: "exit", code: 0x25 },
  );
});

Deno.test("A multiboot guest finds its magic number and its module", async () => {
  const check = [
    // cmp eax, 0x2badb002; jne fail
    ...[0x3d, 0x02, 0xb0, 0xad, 0x2b, 0x75, 19],
    // cmp dword [ebx + 20], 1; jne fail
    ...[0x83, 0x7b, 20, 1, 0x75, 13],
    // mov esi, [ebx + 24]; mov esi, [esi]; mov al, [esi]; out 0xf4, al; jmp $
    ...[0x8b, 0x73, 24, 0x8b, 0x36, 0x8a, 0x06, 0xe6, 0xf4, 0xeb, 0xfe],
    ...[0x90, 0x90],
    // fail:
    ...exit(0),
  ];
  const header = multibootHeader(0x1_0001, [
    0x10_0000,
    0x10_0000,
    0,
    0,
    0x10_0020,
  ]);
  assertEquals(
    await run(concat(header, new Uint8Array(check)), {
      modules: [{ data: new Uint8Array([0x15]), text: "" }],
    }),
    { kind: "exit", code: 0x2b },
  );
});
