/**
 * Names of addresses, from the symbol table of an ELF file (System V ABI, chapter 4) or from a map file.
 * Nothing in a file is trusted.
 *
 * @module
 */

/** A name. */
export interface KdSymbol {
  /** The name. */
  name: string;
  /** Where it is. */
  address: bigint;
  /** Bytes that it covers; 0 if the file does not say. */
  size: bigint;
}

/** A symbol near an address. */
export interface NearSymbol {
  /** The symbol at or before the address. */
  symbol: KdSymbol;
  /** Bytes from it to the address. */
  offset: bigint;
}

/** Farthest that an address may be from a symbol whose size is unknown. */
const MAX_DISTANCE = 0x10_0000n;

/** Symbols of all files, looked up by name and by address. */
export class SymbolTable {
  readonly #byName = new Map<string, KdSymbol>();
  #sorted: KdSymbol[] = [];
  #dirty = false;

  /** How many there are. */
  get size(): number {
    return this.#byName.size;
  }

  /** Adds symbols, moved by `offset`; a name that is there already is replaced. */
  add(symbols: Iterable<KdSymbol>, offset = 0n): void {
    for (const symbol of symbols) {
      const address = BigInt.asUintN(64, symbol.address + offset);
      this.#byName.set(symbol.name, { ...symbol, address });
    }
    this.#dirty = true;
  }

  /** The symbol of a name. */
  get(name: string): KdSymbol | undefined {
    return this.#byName.get(name);
  }

  /** Symbols whose name a pattern with `*` and `?` matches, by address. */
  match(pattern: string): KdSymbol[] {
    const parts = pattern.replace(/[.+^${}()|[\]\\]/g, "\\$&");
    const whole = parts.replaceAll("*", ".*").replaceAll("?", ".");
    const expression = new RegExp(`^${whole}$`, "i");
    return this.#inOrder().filter(({ name }) => expression.test(name));
  }

  /** Names that begin with `start`. */
  completions(start: string): string[] {
    return [...this.#byName.keys()].filter((name) => name.startsWith(start));
  }

  /** The symbol that an address lies in, or behind. */
  near(address: bigint): NearSymbol | undefined {
    const sorted = this.#inOrder();
    let low = 0;
    for (let high = sorted.length; low < high;) {
      const middle = (low + high) >> 1;
      if (sorted[middle]!.address <= address) low = middle + 1;
      else high = middle;
    }
    const symbol = sorted[low - 1];
    if (symbol === undefined) return undefined;
    const offset = address - symbol.address;
    const reach = symbol.size > 0n ? symbol.size : MAX_DISTANCE;
    return offset < reach ? { symbol, offset } : undefined;
  }

  #inOrder(): KdSymbol[] {
    if (this.#dirty) {
      // Of several names at an address the one with the largest size is looked at first from behind.
      this.#sorted = [...this.#byName.values()].sort((a, b) =>
        Number(a.address > b.address) - Number(a.address < b.address) ||
        Number(a.size - b.size)
      );
      this.#dirty = false;
    }
    return this.#sorted;
  }
}

/** Longest name; the rest of a longer one is left out. */
const MAX_NAME = 1024;
const SHT_SYMTAB = 2;
const STT_FUNC = 2;
const SHN_UNDEF = 0;
const SHN_ABS = 0xfff1;

function fail(what: string): never {
  throw new SyntaxError(`Cannot read symbols: ${what}`);
}

function textAt(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/**
 * The symbols of an ELF file's `.symtab`.
 *
 * @throws {SyntaxError} If it is damaged or has none.
 */
export function readElfSymbols(file: Uint8Array): KdSymbol[] {
  if (file.length < 52 || textAt(file.subarray(1, 4)) !== "ELF") {
    fail("no ELF file");
  }
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const wide = file[4] === 2;
  if (file[5] !== 1 || (wide && file.length < 64)) fail("no ELF file for x86");
  const word = (at: number): bigint =>
    wide ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
  const inside = (at: bigint, size: bigint): boolean =>
    at + size <= BigInt(file.length);
  const table = word(wide ? 40 : 32);
  const entrySize = view.getUint16(wide ? 58 : 46, true);
  const count = view.getUint16(wide ? 60 : 48, true);
  if (
    entrySize < (wide ? 64 : 40) || !inside(table, BigInt(entrySize * count))
  ) fail("section headers are outside the file");
  /** Offset and size of a section. */
  const section = (index: number): [number, number] => {
    const at = Number(table) + index * entrySize;
    const offset = word(at + (wide ? 24 : 16));
    const size = word(at + (wide ? 32 : 20));
    if (!inside(offset, size)) fail(`section ${index} is outside the file`);
    return [Number(offset), Number(size)];
  };
  const symbols: KdSymbol[] = [];
  for (let index = 0; index < count; index++) {
    const at = Number(table) + index * entrySize;
    if (view.getUint32(at + 4, true) !== SHT_SYMTAB) continue;
    const link = view.getUint32(at + (wide ? 40 : 24), true);
    if (link >= count) fail(`section ${index} has no names: ${link}`);
    const [start, size] = section(index);
    const [names, namesSize] = section(link);
    const step = wide ? 24 : 16;
    for (let entry = start; entry + step <= start + size; entry += step) {
      const name = view.getUint32(entry, true);
      const type = view.getUint8(entry + (wide ? 4 : 12)) & 15;
      const where = view.getUint16(entry + (wide ? 6 : 14), true);
      // No type, object and function; not what is elsewhere.
      if (type > STT_FUNC || where === SHN_UNDEF || where === SHN_ABS) continue;
      if (name === 0 || name >= namesSize) continue;
      symbols.push({
        name: textAt(
          file.subarray(
            names + name,
            names + Math.min(name + MAX_NAME, namesSize),
          ),
        ),
        address: word(entry + (wide ? 8 : 4)),
        size: word(entry + (wide ? 16 : 8)),
      });
    }
  }
  if (symbols.length === 0) fail("the file has no symbol table");
  return symbols;
}

/** Lines of map files: `nm` (also System.map and kallsyms), GNU ld, Microsoft's linker. */
const MAP_LINES = [
  /^([0-9a-f]{8,16})\s+(?:([0-9a-f]{8,16})\s+)?[A-Za-z]\s+([^\s]+)/,
  /^\s+0x([0-9a-f]{8,16})()\s+([A-Za-z_.$?@][^\s=(]*)$/,
  /^\s*[0-9a-f]{4}:[0-9a-f]{8}\s+(?<name>[^\s]+)\s+(?<at>[0-9a-f]{8,16})\s/,
];

/**
 * The symbols of a map file: what `nm` prints, GNU ld's map, Microsoft's.
 *
 * @throws {SyntaxError} If no line of it is understood.
 */
export function readMapSymbols(text: string): KdSymbol[] {
  const symbols: KdSymbol[] = [];
  for (const line of text.split("\n")) {
    for (const form of MAP_LINES) {
      const found = form.exec(line);
      if (found === null) continue;
      const [, address, size, name] = found;
      symbols.push({
        name: found.groups?.name ?? name!,
        address: BigInt(`0x${found.groups?.at ?? address}`),
        size: found.groups === undefined && size ? BigInt(`0x${size}`) : 0n,
      });
      break;
    }
  }
  if (symbols.length === 0) fail("no line of a map file");
  return symbols;
}

/** The symbols of an ELF or map file. @throws {SyntaxError} If it is neither. */
export function readSymbols(file: Uint8Array): KdSymbol[] {
  return file[0] === 0x7f
    ? readElfSymbols(file)
    : readMapSymbols(new TextDecoder().decode(file));
}
