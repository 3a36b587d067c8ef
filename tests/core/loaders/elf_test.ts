import { assertEquals, assertThrows } from "@std/assert";
import { isElf, parseElf } from "../../../core/loaders/elf.ts";
import { elf, pattern } from "./_images.ts";

const BITS = [32, 64] as const;

Deno.test("parseElf gives segments by physical address, and the entry point", () => {
  for (const bits of BITS) {
    const image = elf(bits, 0x10_0004, [
      { address: 0x10_0000, data: pattern(8), size: 20 },
      { address: 0x20_0000, size: 4096 },
      { address: 0, type: 4, data: pattern(4) },
      { address: 0x30_0000, data: pattern(2) },
    ]);
    const parsed = parseElf(image);
    assertEquals([parsed.bits, parsed.entry], [bits, 0x10_0004]);
    assertEquals(
      parsed.segments.map(({ address, data, size }) => [
        address,
        [...data],
        size,
      ]),
      [
        [0x10_0000, [1, 2, 3, 4, 5, 6, 7, 8], 20],
        [0x20_0000, [], 4096],
        [0x30_0000, [1, 2], 2],
      ],
    );
  }
});

Deno.test("parseElf moves a virtual entry point with its segment", () => {
  assertEquals(
    parseElf(elf(64, 0xffff_ffff_8010_0123n, [
      { address: 0x8000, data: pattern(16) },
      {
        address: 0x10_0000,
        virtual: 0xffff_ffff_8010_0000n,
        data: pattern(16),
        size: 0x1000,
      },
    ])).entry,
    0x10_0123,
  );
  assertEquals(
    parseElf(elf(32, 0xc010_0010, [
      { address: 0x10_0000, virtual: 0xc010_0000, data: pattern(32) },
    ])).entry,
    0x10_0010,
  );
  // It is physical already where no segment has it.
  assertEquals(
    parseElf(elf(32, 0x10_0010, [
      { address: 0x10_0000, virtual: 0xc010_0000, data: pattern(32) },
    ])).entry,
    0x10_0010,
  );
});

Deno.test("parseElf works on a view into a larger buffer", () => {
  const image = elf(64, 0x10_0000, [{ address: 0x10_0000, data: pattern(4) }]);
  const larger = new Uint8Array(image.length + 200).fill(0xff);
  larger.set(image, 100);
  const view = larger.subarray(100, 100 + image.length);
  assertEquals([...parseElf(view).segments[0]!.data], [1, 2, 3, 4]);
});

Deno.test("isElf looks at four bytes", () => {
  assertEquals(isElf(new Uint8Array([0x7f, 0x45, 0x4c, 0x46])), true);
  assertEquals(isElf(new Uint8Array([0x7f, 0x45, 0x4c])), false);
  assertEquals(isElf(new Uint8Array([0x7f, 0x45, 0x4c, 0x47])), false);
});

Deno.test("parseElf refuses an image that ends anywhere too early", () => {
  for (const bits of BITS) {
    const image = elf(bits, 0x10_0000, [
      { address: 0x10_0000, data: pattern(64) },
      { address: 0x20_0000, data: pattern(64) },
    ]);
    for (let length = 0; length < image.length; length++) {
      assertThrows(
        () => parseElf(image.subarray(0, length)),
        SyntaxError,
        "Cannot load ELF image: ",
      );
    }
  }
});

function damaged(
  bits: 32 | 64,
  change: (view: DataView) => void,
): Uint8Array {
  const image = elf(bits, 0x10_0000, [
    { address: 0x10_0000, data: pattern(64) },
  ]);
  change(new DataView(image.buffer));
  return image;
}

for (const bits of BITS) {
  const wide = bits === 64;
  const cases: [string, Uint8Array, string][] = [
    ["a class of 3", damaged(bits, (v) => v.setUint8(4, 3)), "unknown class"],
    [
      "big-endian data",
      damaged(bits, (v) => v.setUint8(5, 2)),
      "not little-endian",
    ],
    [
      "another machine",
      damaged(bits, (v) => v.setUint16(18, 183, true)),
      "not for x86: machine 183",
    ],
    [
      "no program headers",
      damaged(bits, (v) => v.setUint16(wide ? 56 : 44, 0, true)),
      "number of program headers: 0",
    ],
    [
      "65535 program headers",
      damaged(bits, (v) => v.setUint16(wide ? 56 : 44, 0xffff, true)),
      "number of program headers: 65535",
    ],
    [
      "program headers of no size",
      damaged(bits, (v) => v.setUint16(wide ? 54 : 42, 0, true)),
      "size of a program header",
    ],
    [
      "program headers far away",
      damaged(bits, (v) => v.setInt32(wide ? 36 : 28, -1, true)),
      "program headers are outside the file",
    ],
    [
      "nothing to load",
      elf(bits, 0, [{ address: 0, type: 2, data: pattern(4) }]),
      "no segment to load",
    ],
    [
      "only empty segments",
      elf(bits, 0, [{ address: 0x10_0000 }]),
      "no segment to load",
    ],
    [
      "a segment larger in the file",
      elf(bits, 0, [{ address: 0, data: pattern(8), size: 7 }]),
      "larger in the file",
    ],
    [
      "a segment past the file's end",
      elf(bits, 0, [{ address: 0, fileSize: 9, data: pattern(8) }]),
      "outside the file",
    ],
    [
      "an offset at the top of the number range",
      elf(bits, 0, [{
        address: 0,
        data: pattern(8),
        offset: wide ? 2n ** 64n - 1n : 0xffff_ffff,
      }]),
      "outside the file",
    ],
  ];
  for (const [name, image, message] of cases) {
    Deno.test(`parseElf refuses ELF${bits} with ${name}`, () => {
      assertThrows(() => parseElf(image), SyntaxError, message);
    });
  }
}

Deno.test("parseElf refuses a 64-bit machine in ELF32 and the reverse", () => {
  for (const [bits, machine] of [[32, 62], [64, 3]] as const) {
    assertThrows(
      () => parseElf(damaged(bits, (v) => v.setUint16(18, machine, true))),
      SyntaxError,
      "not for x86",
    );
  }
});
