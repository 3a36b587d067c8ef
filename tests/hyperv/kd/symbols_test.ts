import { assertEquals, assertThrows } from "@std/assert";
import {
  readElfSymbols,
  readMapSymbols,
  readSymbols,
  SymbolTable,
} from "../../../hyperv/kd/symbols.ts";
import { Random } from "./_hostile_wire.ts";

/** An ELF file of either class with two sections: symbols and their names. */
function elf(wide: boolean): Uint8Array<ArrayBuffer> {
  const names = new TextEncoder().encode("\0main\0count\0file.c\0away\0");
  const header = wide ? 64 : 52;
  const step = wide ? 24 : 16;
  const section = wide ? 64 : 40;
  const rows = [
    // name, type, section, address, size
    [0, 0, 0, 0, 0],
    [1, 2, 1, 0x1000, 0x20],
    [6, 1, 2, 0x2000, 4],
    [12, 4, 0xfff1, 0, 0],
    [19, 2, 0, 0, 0],
  ] as const;
  const namesAt = header + rows.length * step;
  const table = Math.ceil((namesAt + names.length) / 8) * 8;
  const file = new Uint8Array(table + 3 * section);
  const view = new DataView(file.buffer);
  const word = (at: number, value: number): void =>
    wide
      ? view.setBigUint64(at, BigInt(value), true)
      : view.setUint32(at, value, true);
  file.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, 1]);
  word(wide ? 40 : 32, table);
  view.setUint16(wide ? 58 : 46, section, true);
  view.setUint16(wide ? 60 : 48, 3, true);
  rows.forEach(([name, type, where, address, size], n) => {
    const at = header + n * step;
    view.setUint32(at, name, true);
    view.setUint8(at + (wide ? 4 : 12), type);
    view.setUint16(at + (wide ? 6 : 14), where, true);
    word(at + (wide ? 8 : 4), address);
    word(at + (wide ? 16 : 8), size);
  });
  file.set(names, namesAt);
  const put = (n: number, type: number, at: number, size: number): void => {
    const entry = table + n * section;
    view.setUint32(entry + 4, type, true);
    word(entry + (wide ? 24 : 16), at);
    word(entry + (wide ? 32 : 20), size);
    view.setUint32(entry + (wide ? 40 : 24), 2, true);
  };
  put(1, 2, header, rows.length * step);
  put(2, 3, namesAt, names.length);
  return file;
}

Deno.test("the functions and objects of an ELF file are read, 32 and 64 bits", () => {
  for (const wide of [false, true]) {
    assertEquals(readSymbols(elf(wide)), [
      { name: "main", address: 0x1000n, size: 0x20n },
      { name: "count", address: 0x2000n, size: 4n },
    ]);
  }
});

Deno.test("a damaged ELF file is refused, or read without harm", () => {
  const random = new Random(0xe1f);
  for (const wide of [false, true]) {
    const whole = elf(wide);
    for (let length = 0; length < whole.length; length++) {
      assertThrows(
        () => readElfSymbols(whole.subarray(0, length)),
        SyntaxError,
        "Cannot read symbols: ",
      );
    }
    for (let round = 0; round < 5000; round++) {
      const damaged = whole.slice();
      for (let n = 0; n < 3; n++) {
        damaged[random.below(whole.length)] = random.below(256);
      }
      try {
        readElfSymbols(damaged);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
      }
    }
  }
});

Deno.test("map files of nm, GNU ld and Microsoft's linker are read", () => {
  assertEquals(
    readMapSymbols(
      "ffffffff81000000 T _text\nffffffff81000040 0000000000000010 t helper\nffffffff82000000 D data\t[module]\n",
    ).map(({ name, address, size }) => [name, address, size]),
    [
      ["_text", 0xffff_ffff_8100_0000n, 0n],
      ["helper", 0xffff_ffff_8100_0040n, 0x10n],
      ["data", 0xffff_ffff_8200_0000n, 0n],
    ],
  );
  assertEquals(
    readMapSymbols(
      " .text          0x0000000000100000      0x123 kernel.o\n                0x0000000000100010                main\n                0x0000000000100020                . = ALIGN (0x10)\n",
    ),
    [{ name: "main", address: 0x10_0010n, size: 0n }],
  );
  assertEquals(
    readMapSymbols(
      " 0001:00000010       main                       0000000140001010 f   main.obj\n",
    ),
    [{ name: "main", address: 0x1_4000_1010n, size: 0n }],
  );
  assertThrows(() => readSymbols(new Uint8Array([65])), SyntaxError, "no line");
});

Deno.test("symbols are found by name, pattern and address", () => {
  const table = new SymbolTable();
  table.add([
    { name: "main", address: 0x1000n, size: 0x20n },
    { name: "main_end", address: 0x1020n, size: 0n },
    { name: "a.b", address: 0x90_0000n, size: 0n },
  ], 0x100n);
  assertEquals(table.get("main")?.address, 0x1100n);
  assertEquals(table.near(0x110fn)?.offset, 0xfn);
  assertEquals(table.near(0x1125n)?.symbol.name, "main_end");
  assertEquals(table.near(0xfffn), undefined);
  assertEquals(table.near(0x80_0000n), undefined);
  assertEquals(table.match("m*").map(({ name }) => name), ["main", "main_end"]);
  assertEquals(table.match("a?b").length, 1);
  assertEquals(table.match("a.*").length, 1);
  assertEquals(table.match("[").length, 0);
  assertEquals(table.completions("main_"), ["main_end"]);
});
