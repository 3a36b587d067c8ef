import { undefinedOpcode } from "./fault.ts";
import { Mode } from "./layout.ts";
import type { Action, Handler, OpDef } from "./opcode.ts";

/** Opcode maps. */
export const OpMap = {
  OneByte: 0,
  Of: 1,
  Of38: 2,
  Of3a: 3,
  /** VEX-encoded instructions of the three escaped maps. */
  VexOf: 4,
  VexOf38: 5,
  VexOf3a: 6,
} as const;

/** Mandatory prefixes, in the numbering of VEX.pp; `Any` where none is asked for. */
export const Mandatory = { None: 0, P66: 1, F3: 2, F2: 3, Any: 4 } as const;

/** Ways of finding an operand. */
export type OperandKind =
  | "E"
  | "M"
  | "R"
  | "F"
  | "G"
  | "Z"
  | "B"
  | "I"
  | "A"
  | "J"
  | "S"
  | "C"
  | "D"
  | "O"
  | "X"
  | "V"
  | "W"
  | "U"
  | "P"
  | "Q"
  | "N"
  | "H"
  | "cc"
  | "fixed"
  | "1";

/** One parsed operand. */
export interface Operand {
  readonly kind: OperandKind;
  /** Bytes; 0: the operand size; -1: 4, or 8 with REX.W; -2: nothing to translate. */
  readonly size: number;
  readonly read: boolean;
  readonly write: boolean;
  /** Of immediates: sign-extended from `size` bytes. `fixed`: byte address of the register. */
  readonly detail: number;
  /** Where it is in memory: aligned to 16 bytes. */
  readonly aligned?: boolean;
}

/** A parsed line of the opcode tables. */
export interface Form {
  readonly prefix: number;
  /** ModRM.reg, or -1. */
  readonly reg: number;
  /** The whole ModRM byte, or -1. */
  readonly modrm: number;
  /** "m": memory only, "r": register only, "": both. */
  readonly mod: string;
  /** VEX.W or REX.W wanted, or -1. */
  readonly w: number;
  readonly hasModrm: boolean;
  readonly operands: readonly Operand[];
  /** Handler numbers for operand sizes 16, 32, 64. */
  readonly run: readonly [number, number, number];
  readonly lock: boolean;
  readonly ends: boolean;
  readonly no64: boolean;
  readonly only64: boolean;
  readonly protectedOnly: boolean;
  readonly d64: boolean;
  readonly f64: boolean;
  /** VEX.L wanted, or -1. */
  readonly l: number;
  /** The memory operand has a vector of indices. */
  readonly vsib: boolean;
  /** {@linkcode Mode.Mmx}, Sse or Avx if the instruction needs it, else 0. */
  readonly needs: number;
}

const SIZES: Record<string, number> = {
  b: 1,
  w: 2,
  d: 4,
  q: 8,
  v: 0,
  z: 0,
  y: -1,
  dq: 16,
  qq: 32,
  xx: 32,
  x: 16,
  u: 16,
  "": -2,
  a: -2,
  p: -2,
};

const FIXED: Record<string, readonly [number, number]> = {
  AL: [1, 0],
  rAX: [0, 0],
  eAX: [0, 0],
  CL: [1, 8],
  DX: [2, 16],
};

function parseOperand(text: string): Operand {
  const mark = text[0];
  const write = mark === "+" || mark === "=";
  const read = mark !== "=";
  const name = write ? text.slice(1) : text;
  const fixed = FIXED[name];
  if (fixed) {
    return { kind: "fixed", size: fixed[0], read, write, detail: fixed[1] };
  }
  if (name === "1" || name === "cc") {
    return { kind: name, size: -2, read, write, detail: 0 };
  }
  if (name === "Ibs") return { kind: "I", size: 1, read, write, detail: 1 };
  if (name === "Iwb") return { kind: "I", size: 3, read, write, detail: 0 };
  if (name === "Iz") return { kind: "I", size: -4, read, write, detail: 1 };
  const kind = name[0] as OperandKind;
  const size = SIZES[name.slice(1)];
  if (size === undefined || !"EMRFGZBIAJSCDOXVWUPQNH".includes(kind)) {
    throw new SyntaxError(`Cannot parse operand: ${text}`);
  }
  if (kind === "J") {
    return { kind, size: name === "Jb" ? 1 : -4, read, write, detail: 1 };
  }
  return { kind, size, read, write, detail: 0, aligned: name[1] === "x" };
}

const MODRM_KINDS = "EMRFGSCDXVWUPQN";

function mapOf(bytes: string[], vex: boolean): number {
  if (bytes[0] !== "0F") {
    if (vex) throw new SyntaxError(`Cannot parse opcode: ${bytes.join(" ")}`);
    return OpMap.OneByte;
  }
  bytes.shift();
  let map: number = OpMap.Of;
  const second: string | undefined = bytes.at(0);
  if (second === "38" && bytes.length > 1) {
    map = OpMap.Of38;
    bytes.shift();
  } else if (second === "3A" && bytes.length > 1) {
    map = OpMap.Of3a;
    bytes.shift();
  }
  return vex ? map + 3 : map;
}

/** All instructions that the interpreter knows, in the form the decoder wants. */
export class OpcodeTable {
  /** Handlers by number; numbers below `builtIn` belong to the loop. */
  readonly handlers: Handler[];
  readonly #forms: (Form[] | undefined)[] = new Array(7 * 256);
  readonly #numbers = new Map<Handler, number>();

  /**
   * @param builtIn Handler numbers that the loop carries out itself.
   * @throws {SyntaxError} If a line is malformed.
   */
  constructor(builtIn: number, tables: readonly (readonly OpDef[])[]) {
    this.handlers = new Array<Handler>(builtIn).fill(undefinedOpcode);
    for (const table of tables) for (const def of table) this.#add(def);
    for (const forms of this.#forms) {
      forms?.sort((x, y) => rank(y) - rank(x));
    }
  }

  /** The forms that share an opcode byte, most specific first. */
  forms(map: number, opcode: number): readonly Form[] | undefined {
    return this.#forms[map * 256 + opcode];
  }

  /** The number of an action; a new handler is given one. */
  number(action: Action): number {
    if (typeof action === "number") return action;
    let n = this.#numbers.get(action);
    if (n === undefined) {
      n = this.handlers.push(action) - 1;
      this.#numbers.set(action, n);
    }
    return n;
  }

  #add(def: OpDef): void {
    const words = def.code.split(" ");
    let prefix: number = Mandatory.Any;
    let vex = false;
    let l = -1;
    if (words[0]!.startsWith("VEX")) {
      const parts = words.shift()!.split(".");
      vex = true;
      l = parts.includes("L0") ? 0 : parts.includes("L1") ? 1 : -1;
      prefix = parts.includes("66")
        ? Mandatory.P66
        : parts.includes("F3")
        ? Mandatory.F3
        : parts.includes("F2")
        ? Mandatory.F2
        : Mandatory.None;
    } else if (
      words.length > 1 && ["66", "F2", "F3", "NP"].includes(words[0]!)
    ) {
      prefix = {
        "66": Mandatory.P66,
        F2: Mandatory.F2,
        F3: Mandatory.F3,
        NP: Mandatory.None,
      }[words.shift() as "66" | "F2" | "F3" | "NP"];
    }
    if (words[0] === "0F38" || words[0] === "0F3A") {
      words.splice(0, 1, "0F", words[0]!.slice(2));
    }
    let mod = "", reg = -1, w = -1, registers = 1;
    const bytes: string[] = [];
    for (const word of words) {
      if (word === "m" || word === "r") mod = word;
      else if (word === "W0" || word === "W1") w = Number(word[1]);
      else if (word === "+r") registers = 8;
      else if (word.startsWith("/")) reg = Number(word.slice(1));
      else bytes.push(word.toUpperCase());
    }
    const map = mapOf(bytes, vex);
    let name = bytes[0]!;
    if (name.endsWith("+R")) {
      name = name.slice(0, -2);
      registers = 8;
    }
    const opcode = parseInt(name, 16);
    const modrm = bytes.length > 1 ? parseInt(bytes[1]!, 16) : -1;
    if (Number.isNaN(opcode) || bytes.length > 2) {
      throw new SyntaxError(`Cannot parse opcode: ${def.code}`);
    }
    const operands = (def.operands ?? "").split(" ").filter(Boolean)
      .map(parseOperand);
    const run = def.run;
    const flags = ` ${def.flags ?? ""} `;
    const form: Form = {
      prefix,
      reg,
      modrm,
      mod,
      w,
      hasModrm: reg >= 0 || modrm >= 0 || mod !== "" ||
        uses(operands, MODRM_KINDS),
      operands,
      run: typeof run === "object"
        ? [
          this.number(run[16]),
          this.number(run[32]),
          this.number(run[64] ?? run[32]),
        ]
        : [this.number(run), this.number(run), this.number(run)],
      lock: flags.includes(" lock "),
      ends: flags.includes(" ends "),
      no64: flags.includes(" no64 "),
      only64: flags.includes(" only64 "),
      protectedOnly: flags.includes(" protected "),
      d64: flags.includes(" d64 "),
      f64: flags.includes(" f64 "),
      l,
      vsib: flags.includes(" vsib "),
      needs: vex && (flags.includes(" avx ") || uses(operands, "VWU"))
        ? Mode.Avx
        : flags.includes(" sse ") || uses(operands, "VWU")
        ? Mode.Sse
        : flags.includes(" mmx ") || uses(operands, "PQN")
        ? Mode.Mmx
        : 0,
    };
    for (let n = 0; n < registers; n++) {
      const at = map * 256 + opcode + n;
      (this.#forms[at] ??= []).push(form);
    }
  }
}

function uses(operands: readonly Operand[], kinds: string): boolean {
  return operands.some((operand) => kinds.includes(operand.kind));
}

function rank(form: Form): number {
  return (form.modrm >= 0 ? 16 : 0) +
    (form.prefix === Mandatory.F2 || form.prefix === Mandatory.F3 ? 8 : 0) +
    (form.prefix === Mandatory.P66 ? 4 : 0) +
    (form.prefix === Mandatory.None ? 2 : 0) +
    (form.mod !== "" || form.w >= 0 ? 1 : 0);
}
