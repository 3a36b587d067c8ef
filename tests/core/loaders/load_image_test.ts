import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Segment } from "../../../core/backend.ts";
import { GuestMemory } from "../../../core/guest_memory.ts";
import {
  type LoadedImage,
  loadImage,
  type LoadOptions,
} from "../../../core/loaders/load_image.ts";
import { type FakeVcpu, loneVcpu } from "../_fake_backend.ts";
import { concat, elf, multibootHeader, pattern } from "./_images.ts";

const RAM = 0x40_0000;
const FILL = 0xcc;

function load(
  image: Uint8Array,
  options: LoadOptions = {},
  memory = new GuestMemory(RAM, 0),
): { memory: GuestMemory; vcpu: FakeVcpu; loaded: LoadedImage } {
  memory.fill(0, memory.size, FILL);
  const vcpu = loneVcpu();
  return { memory, vcpu, loaded: loadImage(memory, vcpu, image, options) };
}

/** The image is refused, and neither memory nor vCPU were touched. */
function refused(
  image: Uint8Array,
  options: LoadOptions,
  type: typeof RangeError | typeof SyntaxError,
  message: string,
): void {
  const memory = new GuestMemory(RAM, 0);
  memory.fill(0, memory.size, FILL);
  const vcpu = loneVcpu();
  assertThrows(
    () => loadImage(memory, vcpu, image, options),
    type,
    message,
  );
  assert(untouched(memory), "memory was written");
  assertEquals(vcpu.resets, 0);
}

function untouched(memory: GuestMemory): boolean {
  for (let gpa = 0; gpa < memory.size; gpa += 8) {
    if (memory.view.getUint32(gpa, true) !== 0xcccc_cccc) return false;
    if (memory.view.getUint32(gpa + 4, true) !== 0xcccc_cccc) return false;
  }
  return true;
}

function text(memory: GuestMemory, gpa: number): string {
  const end = memory.bytes.indexOf(0, gpa);
  return new TextDecoder().decode(memory.read(gpa, end - gpa));
}

/** What the GDT says of a selector must be what the register holds. */
function assertSegmentMatchesGdt(
  memory: GuestMemory,
  vcpu: FakeVcpu,
  segment: Segment,
): void {
  const { base, limit } = vcpu.system.gdt;
  assert(segment.selector + 7 <= limit);
  const word = memory.view.getBigUint64(Number(base) + segment.selector, true);
  const bits = (at: number, length: number): number =>
    Number((word >> BigInt(at)) & ((1n << BigInt(length)) - 1n));
  const raw = bits(0, 16) | (bits(48, 4) << 16);
  assertEquals(
    {
      base: bits(16, 24) + bits(56, 8) * 0x100_0000,
      limit: bits(55, 1) === 1 ? raw * 4096 + 4095 : raw,
      type: bits(40, 4),
      s: bits(44, 1) === 1,
      dpl: bits(45, 2),
      present: bits(47, 1) === 1,
      l: bits(53, 1) === 1,
      db: bits(54, 1) === 1,
    },
    {
      base: Number(segment.base),
      limit: segment.limit,
      type: segment.type,
      s: segment.s,
      dpl: segment.dpl,
      present: segment.present,
      l: segment.l,
      db: segment.db,
    },
  );
}

/** Walks the page tables as hardware does: the physical address. */
function walk(memory: GuestMemory, cr3: bigint, linear: number): number {
  let table = Number(cr3);
  for (const shift of [39, 30, 21]) {
    const index = Math.floor(linear / 2 ** shift) & 511;
    const entry = memory.view.getBigUint64(table + index * 8, true);
    assertEquals(entry & 3n, 3n, `entry for ${linear} at ${shift}`);
    table = Number(entry & 0xf_ffff_ffff_f000n);
    if ((entry & 0x80n) !== 0n) return table + linear % 2 ** shift;
  }
  throw new Error("no large page");
}

function assertProtectedMode(memory: GuestMemory, vcpu: FakeVcpu): void {
  const { cs, ds, es, fs, gs, ss, cr0, efer } = vcpu.system;
  assertEquals(cr0 & 0x8000_0001n, 1n);
  assertEquals(efer, 0n);
  assertEquals([cs.db, cs.l, cs.limit], [true, false, 0xffff_ffff]);
  for (const segment of [cs, ds, es, fs, gs, ss]) {
    assertSegmentMatchesGdt(memory, vcpu, segment);
  }
  // IF, VM, TF and DF are clear.
  assertEquals(vcpu.registers.rflags, 2n);
}

Deno.test("loadImage puts a flat image at 0x7C00 in real mode by default", () => {
  const { memory, vcpu, loaded } = load(pattern(512));
  assertEquals(loaded, { kind: "flat", entry: 0x7c00, mode: "real" });
  assertEquals(memory.read(0x7c00, 512), pattern(512));
  assertEquals(memory.bytes[0x7bff], FILL);
  assertEquals(memory.bytes[0x7e00], FILL);
  const { cs, ds, ss, cr0 } = vcpu.system;
  assertEquals([cs.selector, cs.base, cs.limit], [0, 0n, 0xffff]);
  assertEquals([ds.base, ss.base], [0n, 0n]);
  assertEquals(cr0 & 1n, 0n);
  assertEquals(vcpu.registers.rip, 0x7c00n);
});

Deno.test("loadImage enters real mode above 64 KiB by a segment", () => {
  const { vcpu, loaded } = load(pattern(64), {
    address: 0x1_2340,
    entry: 0x1_2345,
  });
  assertEquals(loaded.entry, 0x1_2345);
  const { cs } = vcpu.system;
  assertEquals([cs.selector, cs.base], [0x1234, 0x1_2340n]);
  assertEquals(vcpu.registers.rip, 5n);
});

Deno.test("loadImage puts a flat image at 1 MiB in protected mode", () => {
  const { memory, vcpu, loaded } = load(pattern(100), { mode: "protected" });
  assertEquals(loaded, {
    kind: "flat",
    entry: 0x10_0000,
    mode: "protected",
  });
  assertEquals(memory.read(0x10_0000, 100), pattern(100));
  assertProtectedMode(memory, vcpu);
  assertEquals(vcpu.registers.rip, 0x10_0000n);
});

Deno.test("loadImage maps 4 GiB to themselves in long mode", () => {
  const { memory, vcpu, loaded } = load(pattern(100), {
    mode: "long",
    address: 0x20_0000,
    entry: 0x20_0010,
  });
  assertEquals(loaded, { kind: "flat", entry: 0x20_0010, mode: "long" });
  const { cs, ds, cr0, cr3, cr4, efer } = vcpu.system;
  assertEquals([cr0 & 0x8000_0001n, cr4 & 0x20n], [0x8000_0001n, 0x20n]);
  // LME and LMA.
  assertEquals(efer & 0x500n, 0x500n);
  assertEquals([cs.l, cs.db], [true, false]);
  assertSegmentMatchesGdt(memory, vcpu, cs);
  assertSegmentMatchesGdt(memory, vcpu, ds);
  for (
    const linear of [
      0,
      0x7c00,
      0x20_0000,
      0x3fff_ffff,
      0x4000_0000,
      0xfee0_0020,
      0xffff_ffff,
    ]
  ) {
    assertEquals(walk(memory, cr3, linear), linear);
  }
});

Deno.test("loadImage enters ELF32 in protected mode with zeroed bss", () => {
  const { memory, vcpu, loaded } = load(elf(32, 0x10_0002, [
    { address: 0x10_0000, data: pattern(10), size: 5000 },
    { address: 0x20_0000, size: 16 },
  ]));
  assertEquals(loaded, {
    kind: "elf32",
    entry: 0x10_0002,
    mode: "protected",
  });
  assertEquals(memory.read(0x10_0000, 10), pattern(10));
  assertEquals(memory.read(0x10_000a, 4990), new Uint8Array(4990));
  assertEquals(memory.bytes[0x10_0000 + 5000], FILL);
  assertEquals(memory.read(0x20_0000, 16), new Uint8Array(16));
  assertProtectedMode(memory, vcpu);
});

Deno.test("loadImage enters ELF64 in long mode", () => {
  const { memory, vcpu, loaded } = load(elf(64, 0xffff_8000_0010_0001n, [
    {
      address: 0x10_0000,
      virtual: 0xffff_8000_0010_0000n,
      data: pattern(10),
    },
  ]));
  assertEquals(loaded, { kind: "elf64", entry: 0x10_0001, mode: "long" });
  assertEquals(vcpu.registers.rip, 0x10_0001n);
  assertEquals(walk(memory, vcpu.system.cr3, 0x10_0001), 0x10_0001);
});

Deno.test("loadImage's entry option goes before the image's", () => {
  const { loaded, vcpu } = load(
    elf(32, 0x10_0000, [{ address: 0x10_0000, data: pattern(16) }]),
    { entry: 0x10_0008 },
  );
  assertEquals(loaded.entry, 0x10_0008);
  assertEquals(vcpu.registers.rip, 0x10_0008n);
});

Deno.test("loadImage loads overlapping segments in the file's order", () => {
  const { memory } = load(elf(32, 0x10_0000, [
    { address: 0x10_0000, data: pattern(8) },
    { address: 0x10_0004, data: new Uint8Array([9, 9]), size: 3 },
  ]));
  assertEquals(
    [...memory.read(0x10_0000, 8)],
    [1, 2, 3, 4, 9, 9, 0, 8],
  );
});

Deno.test("loadImage loads a multiboot ELF as the specification says", () => {
  const image = elf(
    32,
    0x10_0000,
    [{ address: 0x10_0000, data: pattern(16), size: 0x1800 }],
    multibootHeader(3),
  );
  const { memory, vcpu, loaded } = load(image, {
    commandLine: "kernel -v \u00e4",
    modules: [
      { data: pattern(5000), text: "first a b" },
      { data: new Uint8Array(), text: "empty" },
      { data: pattern(3), text: "third" },
    ],
  });
  assertEquals(loaded, {
    kind: "multiboot",
    entry: 0x10_0000,
    mode: "protected",
  });
  assertProtectedMode(memory, vcpu);
  assertEquals(vcpu.registers.rax, 0x2bad_b002n);
  const info = Number(vcpu.registers.rbx);
  const u32 = (at: number): number => memory.view.getUint32(at, true);
  const u64 = (at: number): number =>
    Number(memory.view.getBigUint64(at, true));
  // Memory, command line, modules, memory map, boot loader name.
  assertEquals(u32(info), 0x24d);
  assertEquals([u32(info + 4), u32(info + 8)], [640, 3072]);
  assertEquals(text(memory, u32(info + 16)), "kernel -v \u00e4");
  assertEquals(text(memory, u32(info + 64)), "syndbg");
  assertEquals(u32(info + 20), 3);
  const list = u32(info + 24);
  const modules = [0, 1, 2].map((n) => {
    const [start, end, line, zero] = [0, 4, 8, 12].map((at) =>
      u32(list + n * 16 + at)
    );
    assertEquals([start! % 4096, zero], [0, 0]);
    return { bytes: memory.read(start!, end! - start!), start, line };
  });
  assertEquals(modules.map(({ bytes }) => bytes), [
    pattern(5000),
    new Uint8Array(),
    pattern(3),
  ]);
  assertEquals(
    modules.map(({ line }) => text(memory, line!)),
    ["first a b", "empty", "third"],
  );
  // Behind the kernel's bss.
  assertEquals(modules[0]!.start, 0x10_2000);
  const regions: number[][] = [];
  const map = u32(info + 48);
  for (let at = map; at < map + u32(info + 44); at += u32(at) + 4) {
    assertEquals(u32(at), 20);
    regions.push([u64(at + 4), u64(at + 12), u32(at + 20)]);
  }
  assertEquals(regions, [
    [0, 0xa_0000, 1],
    [0xa_0000, 0x6_0000, 2],
    [0x10_0000, RAM - 0x10_0000, 1],
  ]);
  assertEquals(memory.read(0x10_0000, 16), pattern(16));
});

Deno.test("loadImage gives a multiboot guest of 3 GiB its memory's size", () => {
  const memory = new GuestMemory(0xc000_0000, 0);
  const vcpu = loneVcpu();
  const image = elf(
    32,
    0x10_0000,
    [{ address: 0x10_0000, data: pattern(16) }],
    multibootHeader(2),
  );
  loadImage(memory, vcpu, image);
  const info = Number(vcpu.registers.rbx);
  assertEquals(
    memory.view.getUint32(info + 8, true),
    (0xc000_0000 - 0x10_0000) / 1024,
  );
});

Deno.test("loadImage takes the addresses of a multiboot header that has them", () => {
  const body = pattern(100);
  const lead = new Uint8Array(64).fill(0x90);
  const header = multibootHeader(0x1_0003, [
    0x10_0020,
    0x10_0000,
    0x10_0060,
    0x10_0100,
    0x10_0044,
  ]);
  const image = concat(lead, header, body);
  // The header is 64 bytes into the file, 32 into what is loaded.
  const { memory, loaded } = load(image);
  assertEquals(loaded, {
    kind: "multiboot",
    entry: 0x10_0044,
    mode: "protected",
  });
  assertEquals(memory.read(0x10_0000, 0x60), image.slice(32, 32 + 0x60));
  assertEquals(memory.read(0x10_0060, 0xa0), new Uint8Array(0xa0));
  assertEquals(memory.bytes[0x10_0100], FILL);
});

Deno.test("loadImage loads to the file's end with a load end of 0", () => {
  const header = multibootHeader(0x1_0000, [
    0x10_0000,
    0x10_0000,
    0,
    0,
    0x10_0020,
  ]);
  const image = concat(header, pattern(50));
  const { memory } = load(image);
  assertEquals(memory.read(0x10_0000, image.length), image);
  assertEquals(memory.bytes[0x10_0000 + image.length], FILL);
});

Deno.test("loadImage looks for a multiboot header in 8 KiB, on words", () => {
  const make = (at: number): Uint8Array =>
    concat(
      new Uint8Array(at),
      multibootHeader(0x1_0000, [0x10_0000 + at, 0x10_0000, 0, 0, 0x10_0000]),
      pattern(16),
    );
  const options = { address: 0x8000 };
  assertEquals(load(make(0)).loaded.kind, "multiboot");
  assertEquals(load(make(8192 - 32)).loaded.kind, "multiboot");
  assertEquals(load(make(8192), options).loaded.kind, "flat");
  assertEquals(load(make(2), options).loaded.kind, "flat");
  const wrong = make(0);
  wrong[8]! ^= 1;
  assertEquals(load(wrong, options).loaded.kind, "flat");
});

Deno.test("loadImage refuses multiboot images that cannot be satisfied", () => {
  const kludge = (...addresses: number[]): Uint8Array =>
    concat(multibootHeader(0x1_0000, addresses), pattern(64));
  const cases: [Uint8Array, string][] = [
    [concat(multibootHeader(8), pattern(64)), "unknown required flags"],
    [multibootHeader(0x1_0000), "header is cut off"],
    [concat(multibootHeader(0), pattern(64)), "no ELF magic number"],
    [
      kludge(0x10_0000, 0x10_0001, 0, 0, 0x10_0000),
      "load address is above the header's",
    ],
    [
      kludge(0x10_0004, 0x10_0000, 0, 0, 0x10_0000),
      "load address is before the file",
    ],
    [
      kludge(0x10_0000, 0x10_0000, 0x10_0061, 0, 0x10_0000),
      "load end address is outside the file",
    ],
    [
      kludge(0x10_0000, 0x10_0000, 0xf_ffff, 0, 0x10_0000),
      "load end address is outside the file",
    ],
    [
      kludge(0x10_0000, 0x10_0000, 0x10_0060, 0x10_005f, 0x10_0000),
      "bss ends before the data",
    ],
    [
      elf(
        64,
        0x10_0000,
        [{ address: 0x10_0000, data: pattern(8) }],
        multibootHeader(0),
      ),
      "a 64-bit ELF file",
    ],
  ];
  for (const [image, message] of cases) {
    refused(image, {}, SyntaxError, message);
  }
  refused(
    kludge(0xffff_f000, 0xffff_f000, 0, 0, 0x10_0000),
    {},
    RangeError,
    "outside guest memory",
  );
  refused(
    kludge(0x10_0000, 0x10_0000, 0, 0xffff_ffff, 0x10_0000),
    {},
    RangeError,
    "outside guest memory",
  );
  refused(
    kludge(0x10_0000, 0x10_0000, 0, 0, 0xffff_fff0),
    {},
    RangeError,
    "entry point 0xfffffff0 is outside guest memory",
  );
});

Deno.test("loadImage checks modules and command lines before it writes", () => {
  const image = elf(
    32,
    0x10_0000,
    [{ address: 0x10_0000, data: pattern(16) }],
    multibootHeader(3),
  );
  const module = (size: number, text = ""): {
    data: Uint8Array;
    text: string;
  } => ({ data: new Uint8Array(size), text });
  refused(
    image,
    { modules: [module(16), module(RAM, "huge")] },
    RangeError,
    "module does not fit guest memory: huge",
  );
  refused(
    image,
    { commandLine: "x".repeat(20_000) },
    RangeError,
    "command lines are too long",
  );
  refused(
    image,
    { modules: Array.from({ length: 4 }, () => module(1, "x".repeat(4000))) },
    RangeError,
    "command lines are too long",
  );
  refused(
    image,
    { modules: Array.from({ length: 65 }, () => module(1)) },
    RangeError,
    "too many modules: 65",
  );
});

Deno.test("loadImage refuses what does not lie in memory", () => {
  const inRam = { address: 0x10_0000, data: pattern(16) };
  for (const bits of [32, 64] as const) {
    for (
      const part of [
        { address: RAM, data: pattern(1) },
        { address: RAM - 1, data: pattern(2) },
        { address: RAM - 16, data: pattern(4), size: 17 },
        { address: 0x10_0000, size: 0xffff_ffff },
        { address: 0xffff_ffff, data: pattern(1) },
      ]
    ) {
      refused(
        elf(bits, 0x10_0000, [inRam, part]),
        {},
        RangeError,
        "outside guest memory",
      );
    }
    for (const entry of [RAM, 0xffff_ffff]) {
      refused(
        elf(bits, entry, [inRam]),
        {},
        RangeError,
        `entry point 0x${entry.toString(16)} is outside guest memory`,
      );
    }
  }
});

Deno.test("loadImage refuses ELF64 sizes up to the top of 64 bits", () => {
  const inRam = { address: 0x10_0000, data: pattern(16) };
  const top = 2n ** 64n - 1n;
  for (const size of [2n ** 32n, 2n ** 53n + 1n, 2n ** 63n, top]) {
    refused(
      elf(64, 0x10_0000, [inRam, { address: 0x20_0000, size }]),
      {},
      RangeError,
      "outside guest memory",
    );
    refused(
      elf(64, 0x10_0000, [inRam, { address: size, data: pattern(4) }]),
      {},
      RangeError,
      "outside guest memory",
    );
    refused(elf(64, size, [inRam]), {}, RangeError, "entry point");
  }
});

Deno.test("loadImage refuses segments that are larger in all than memory", () => {
  refused(
    elf(
      32,
      0x10_0000,
      Array.from({ length: 1000 }, () => ({
        address: 0x10_0000,
        size: 0x20_0000,
      })),
    ),
    {},
    RangeError,
    "segments are outside guest memory",
  );
});

Deno.test("loadImage refuses images over its own tables", () => {
  const part = (address: number): Uint8Array =>
    elf(64, 0x10_0000, [
      { address: 0x10_0000, data: pattern(16) },
      { address, data: pattern(16) },
    ]);
  refused(part(0x500), {}, RangeError, "overlaps what the loader puts");
  refused(part(0x6_0ff8), {}, RangeError, "overlaps what the loader puts");
  refused(part(0x5_fff8), {}, RangeError, "overlaps what the loader puts");
  refused(
    elf(
      32,
      0x10_0000,
      [{ address: 0x10_0000, data: pattern(16) }, {
        address: 0x1ff0,
        size: 32,
      }],
      multibootHeader(0),
    ),
    {},
    RangeError,
    "overlaps what the loader puts",
  );
});

Deno.test("loadImage refuses flat images that cannot be", () => {
  refused(new Uint8Array(), {}, SyntaxError, "no bytes");
  refused(
    pattern(16),
    { address: 0x20_0000 },
    RangeError,
    "entry point 0x200000 is out of real mode's reach",
  );
  refused(pattern(16), { entry: RAM }, RangeError, "outside guest memory");
  refused(new Uint8Array(RAM), {}, RangeError, "outside guest memory");
  for (const address of [-1, 0.5, NaN, Infinity, 2 ** 53]) {
    refused(pattern(16), { address }, RangeError, "outside guest memory");
  }
  for (const entry of [-1, 0.5, NaN, Infinity]) {
    refused(pattern(16), { entry }, RangeError, "outside guest memory");
  }
});

Deno.test("loadImage refuses memory below 2 MiB", () => {
  const memory = new GuestMemory(0x10_0000, 0);
  assertThrows(
    () => loadImage(memory, loneVcpu(), pattern(16)),
    RangeError,
    "guest memory is below 2 MiB",
  );
});

function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Field values that break careless arithmetic. */
const EDGES = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

Deno.test("loadImage takes 30,000 damaged images as loaded or refused, never more", () => {
  const part = { address: 0x10_0000, data: pattern(64), size: 0x1000 };
  const images = [
    elf(32, 0x10_0000, [part, { address: 0x12_0000, size: 64 }]),
    elf(64, 0x10_0000, [part, { address: 0x12_0000, size: 64 }]),
    elf(32, 0x10_0000, [part], multibootHeader(3)),
    concat(
      multibootHeader(0x1_0003, [
        0x10_0000,
        0x10_0000,
        0x10_0040,
        0x10_0100,
        0x10_0020,
      ]),
      pattern(64),
    ),
  ];
  const memory = new GuestMemory(0x20_0000, 0);
  const guard = new Uint8Array(memory.memory.buffer);
  assertEquals(guard.length, memory.size);
  let loads = 0;
  let refusals = 0;
  const random = generator(0x5eed);
  for (let n = 0; n < 30_000; n++) {
    let image = images[n % images.length]!.slice();
    const view = new DataView(image.buffer);
    for (let k = random() % 4; k >= 0; k--) {
      const at = random() % image.length;
      switch (random() % 3) {
        case 0:
          image[at]! ^= 1 << (random() & 7);
          break;
        case 1:
          image[at] = random();
          break;
        default:
          if (at + 4 <= image.length) {
            view.setUint32(at, EDGES[random() % EDGES.length]!, true);
          }
      }
    }
    if (random() % 8 === 0) image = image.slice(0, random() % image.length);
    const vcpu = loneVcpu();
    try {
      const { entry } = loadImage(memory, vcpu, image, {
        modules: [{ data: pattern(16), text: "module" }],
      });
      assert(memory.contains(entry, 1));
      assertEquals(vcpu.resets, 1);
      loads++;
    } catch (error) {
      if (
        !(error instanceof SyntaxError || error instanceof RangeError) ||
        !error.message.startsWith("Cannot load")
      ) {
        throw error;
      }
      assertEquals(vcpu.resets, 0);
      refusals++;
    }
  }
  assert(loads > 1000 && refusals > 1000, `${loads} loads`);
});
