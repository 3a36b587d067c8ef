/** An instruction for a reader. */
export interface Instruction {
  /** Its bytes. */
  length: number;
  /** Mnemonic and operands. */
  text: string;
  /** Where it jumps to or what it refers to, if that is an address. */
  target: bigint | undefined;
}

/** Takes instructions apart. */
export interface Disassembler {
  /** The instruction at the beginning of `code`; undefined if it is none or is cut off. */
  decode(
    code: Uint8Array,
    address: bigint,
    bits: 32 | 64,
  ): Instruction | undefined;
}

/**
 * iced-x86 (MIT), in WebAssembly. It is fetched and loaded when the first instruction is to be shown, so the name is
 * kept out of the module graph: without it nothing but the disassembly is missing.
 */
const LIBRARY: string = "npm:iced-x86@1.21.0";

/** Milliseconds that fetching it may take. */
const LOAD_TIME = 10_000;

/** As much of iced-x86 as is used. */
interface Iced {
  Decoder: new (bits: number, code: Uint8Array, options: number) => {
    ip: bigint;
    decode(): IcedInstruction;
    free(): void;
  };
  Formatter: new (syntax: number) => IcedFormatter;
  FormatterSyntax: { Masm: number };
}

interface IcedInstruction {
  length: number;
  isInvalid: boolean;
  isIpRelMemoryOperand: boolean;
  ipRelMemoryAddress: bigint;
  nearBranchTarget: bigint;
  op0Kind: number;
  free(): void;
}

interface IcedFormatter {
  format(instruction: IcedInstruction): string;
  uppercaseHex: boolean;
}

/** OpKind NearBranch16 to NearBranch64. */
const NEAR_BRANCHES = [1, 2, 3];

/** The library, if it can be had, and soon: a network may answer nothing at all. */
async function loadLibrary(): Promise<Iced | undefined> {
  const { promise, resolve } = Promise.withResolvers<Iced | undefined>();
  const timer = setTimeout(() => resolve(undefined), LOAD_TIME);
  import(LIBRARY).then(resolve, () => resolve(undefined));
  const library = await promise;
  clearTimeout(timer);
  return library;
}

/** Loads the disassembler; undefined if it cannot be had. */
export async function loadDisassembler(): Promise<Disassembler | undefined> {
  const iced = await loadLibrary();
  if (iced === undefined) return undefined;
  const formatter = new iced.Formatter(iced.FormatterSyntax.Masm);
  formatter.uppercaseHex = false;
  return {
    decode: (code, address, bits) => {
      const decoder = new iced.Decoder(bits, code, 0);
      decoder.ip = address;
      const instruction = decoder.decode();
      try {
        if (instruction.isInvalid) return undefined;
        const target = NEAR_BRANCHES.includes(instruction.op0Kind)
          ? instruction.nearBranchTarget
          : instruction.isIpRelMemoryOperand
          ? instruction.ipRelMemoryAddress
          : undefined;
        const { length } = instruction;
        return { length, text: formatter.format(instruction), target };
      } finally {
        instruction.free();
        decoder.free();
      }
    },
  };
}
