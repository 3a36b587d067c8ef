import {
  AMD64_SPECIAL_LENGTH,
  type KdRegisters,
  specialRegisters,
} from "../../hyperv/kd/context.ts";
import { KdDebugger } from "../../hyperv/kd/debugger.ts";
import { evaluate, type ExpressionScope } from "../../hyperv/kd/expression.ts";
import { KdError } from "../../hyperv/kd/link.ts";
import type { KdSession } from "../../hyperv/kd/session.ts";
import type { StateChange } from "../../hyperv/kd/state_change.ts";
import { NtStatus } from "../../hyperv/kd/status.ts";
import {
  type KdSymbol,
  readSymbols,
  SymbolTable,
} from "../../hyperv/kd/symbols.ts";
import type { WaitOptions } from "../../hyperv/kd/waiters.ts";
import {
  type Disassembler,
  type Instruction,
  loadDisassembler,
} from "./disassembler.ts";
import { hex, json, plain } from "./format.ts";

/** What a command has to say: to a person, and to a program. */
export interface CommandResult {
  text: string;
  value: unknown;
  /** The command ends the console. */
  quit?: true;
}

/** An image or a file of symbols. */
export interface Module {
  name: string;
  base: bigint;
  size: number;
  /** Whether the target said so. */
  loaded: boolean;
}

/** Control space of KSPECIAL_REGISTERS on amd64. */
const SPECIAL = 2n;
/** Longest instruction. */
const MAX_INSTRUCTION = 15;
/** Milliseconds that a target has to take that it may go on. */
const LEAVE_TIME = 1000;
/** A target that loads more is not believed, nor are longer names. */
const MAX_MODULES = 1000;
const MAX_NAME = 260;
/** Names that expressions know for registers. */
const ALIASES: Record<string, readonly [long: string, short: string]> = {
  $ip: ["rip", "eip"],
  $pc: ["rip", "eip"],
  $sp: ["rsp", "esp"],
  $csp: ["rsp", "esp"],
  efl: ["eflags", "eflags"],
};

/** Input of a user that cannot be used, or a file. */
export class CommandError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "CommandError";
  }
}

/** A file of symbols. */
export interface SymbolFile {
  /** What it is called. */
  name: string;
  /** What it holds: an ELF file or a map. */
  data: Uint8Array;
}

function read(name: string, data: Uint8Array): KdSymbol[] {
  try {
    return readSymbols(data);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new CommandError(`${error.message} (${name})`);
  }
}

/** What the commands work on: a debugger, symbols, and where the last dump ended. */
export class DebugShell {
  readonly debugger: KdDebugger;
  readonly symbols: SymbolTable = new SymbolTable();
  /** Images that the target loaded, and files of symbols. */
  modules: Module[] = [];
  /** Where `db` and the like go on. */
  dumpAddress: bigint | undefined;
  /** Where `u` goes on. */
  codeAddress: bigint | undefined;
  readonly #disassembler: () => Promise<Disassembler | undefined>;
  #loaded: Promise<Disassembler | undefined> | undefined;
  #context: KdRegisters | undefined;
  #contextOf: StateChange | undefined;

  constructor(
    session: KdSession,
    disassembler: () => Promise<Disassembler | undefined> = loadDisassembler,
  ) {
    this.debugger = new KdDebugger(session);
    this.#disassembler = disassembler;
  }

  get session(): KdSession {
    return this.debugger.session;
  }

  /** The registers of this stop. */
  async context(): Promise<KdRegisters> {
    const { stop } = this.session;
    if (this.#context === undefined || this.#contextOf !== stop) {
      this.#context = await this.session.getContext();
      this.#contextOf = stop;
    }
    return this.#context;
  }

  /** Changes a register. */
  async setRegister(name: string, value: bigint): Promise<void> {
    const [long, short] = ALIASES[name] ?? [name, name];
    const context = await this.debugger.changeContext((context) => {
      context.set(context.has(long) ? long : short, value);
    });
    this.#context = context;
  }

  /** The value and width in bits of a register, the system's included; undefined if there is none such. */
  async register(
    name: string,
  ): Promise<{ value: bigint; width: number } | undefined> {
    const context = await this.context();
    const [long, short] = ALIASES[name] ?? [name, name];
    for (const register of [long, short]) {
      if (context.has(register)) {
        const value = context.get(register);
        return { value, width: context.width(register) };
      }
    }
    const { machine } = await this.session.version();
    if (!context.has("rip")) return undefined;
    const empty = new Uint8Array(AMD64_SPECIAL_LENGTH);
    if (!specialRegisters(machine, empty).has(name)) return undefined;
    const bytes = await this.session.readControlSpace(
      SPECIAL,
      AMD64_SPECIAL_LENGTH,
    );
    if (bytes.length < AMD64_SPECIAL_LENGTH) return undefined;
    const special = specialRegisters(machine, bytes);
    return { value: special.get(name), width: special.width(name) };
  }

  /** Evaluates an expression. @throws {CommandError} If it cannot be. */
  async evaluate(text: string): Promise<bigint> {
    // Without a stop there are only numbers and names.
    const stopped = this.session.stop !== undefined;
    const scope: ExpressionScope = {
      pointerBytes: stopped && !await this.session.isLong() ? 4 : 8,
      symbol: (name) => this.symbols.get(name.replace(/^[^!]*!/, ""))?.address,
      register: async (name) =>
        stopped ? (await this.register(name))?.value : undefined,
      read: (address, bytes) => this.debugger.readNumber(address, bytes),
    };
    try {
      return await evaluate(text, scope);
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof RangeError) {
        throw new CommandError(error.message);
      }
      throw error;
    }
  }

  /** Digits of an address. */
  async digits(): Promise<8 | 16> {
    return this.session.stop && !await this.session.isLong() ? 8 : 16;
  }

  /** `name+0x12`, or undefined where no symbol is near. */
  symbolAt(address: bigint): string | undefined {
    const near = this.symbols.near(address);
    if (near === undefined) return undefined;
    const { symbol, offset } = near;
    return offset === 0n ? symbol.name : `${symbol.name}+${json(offset)}`;
  }

  /** The disassembler, loaded when it is first asked for. */
  disassembler(): Promise<Disassembler | undefined> {
    return this.#loaded ??= this.#disassembler();
  }

  /** Instructions from an address on, as far as there is memory; bytes that are none come alone, without text. */
  async instructions(
    address: bigint,
    count: number,
  ): Promise<{ address: bigint; bytes: Uint8Array; code?: Instruction }[]> {
    const disassembler = await this.disassembler();
    const bits = await this.digits() === 16 ? 64 : 32;
    const memory = await this.session.readVirtual(
      address,
      count * MAX_INSTRUCTION,
    );
    const found = [];
    for (let at = 0; found.length < count && at < memory.length;) {
      const rest = memory.subarray(at);
      const here = BigInt.asUintN(64, address + BigInt(at));
      const code = disassembler?.decode(
        rest.subarray(0, MAX_INSTRUCTION),
        here,
        bits,
      );
      const bytes = rest.slice(0, code?.length ?? 1);
      found.push({ address: here, bytes, ...(code && { code }) });
      at += bytes.length;
    }
    return found;
  }

  /** Adds a file's symbols. @throws {CommandError} If it has none. */
  addSymbols({ name, data }: SymbolFile, offset = 0n): number {
    const symbols = read(name, data);
    this.symbols.add(symbols, offset);
    const addresses = symbols.map(({ address }) => address + offset);
    const base = addresses.reduce((a, b) => a < b ? a : b);
    const end = addresses.reduce((a, b) => a > b ? a : b);
    const size = Number(end - base);
    this.modules.push({ name, base, size, loaded: false });
    return symbols.length;
  }

  /** The instruction at an address, with the symbol before it. */
  async where(
    pc: bigint,
  ): Promise<{ text: string; symbol?: string; instruction?: string }> {
    const symbol = this.symbolAt(pc);
    const [found] = await this.instructions(pc, 1).catch((error: unknown) => {
      if (error instanceof KdError && error.status !== undefined) return [];
      throw error;
    });
    const digits = await this.digits();
    const line = found
      ? this.instructionText(found, digits)
      : `${hex(pc, digits)} ??`;
    return {
      text: symbol ? `${symbol}:\n${line}` : line,
      ...(symbol && { symbol }),
      ...(found?.code && { instruction: found.code.text }),
    };
  }

  /** Says why the target stopped and where. */
  async report(stop: StateChange): Promise<CommandResult> {
    const { programCounter: pc, processor, exception } = stop;
    const code = exception?.code ?? 0;
    const hit = code === NtStatus.Breakpoint
      ? this.debugger.breakpoints.find((entry) =>
        entry.enabled && entry.address === pc
      )
      : undefined;
    const chance = exception?.firstChance ? "first" : "second";
    const lines: string[] = [];
    if (hit) lines.push(`Breakpoint ${hit.id} hit`);
    else if (code === NtStatus.Breakpoint) {
      lines.push(
        `Break instruction exception - code 80000003 (${chance} chance)`,
      );
    } else if (code !== NtStatus.SingleStep) {
      lines.push(
        `Exception ${hex(code, 8)} at ${
          hex(exception?.address ?? pc)
        } (${chance} chance)`,
      );
    }
    this.codeAddress = pc;
    const { text, symbol, instruction } = await this.where(pc);
    lines.push(text);
    return {
      text: lines.join("\n"),
      value: {
        state: hit
          ? "breakpoint"
          : code === NtStatus.SingleStep
          ? "step"
          : code === NtStatus.Breakpoint
          ? "break"
          : "exception",
        code: json(code),
        pc: json(pc),
        processor,
        ...(symbol && { symbol }),
        ...(hit && { breakpoint: hit.id }),
        ...(instruction && { instruction }),
      },
    };
  }

  /** One line of an instruction: address, bytes, text, and the symbol of what it refers to. */
  instructionText(
    instruction: { address: bigint; bytes: Uint8Array; code?: Instruction },
    digits: number,
  ): string {
    const { address, bytes, code } = instruction;
    const symbol = code?.target === undefined
      ? undefined
      : this.symbolAt(code.target);
    const start = `${hex(address, digits)} ${bytes.toHex().padEnd(15)} ${
      code?.text ?? "??"
    }`;
    return symbol ? `${start} (${symbol})` : start;
  }

  /** Stops the target and reports. */
  async breakIn(wait: WaitOptions): Promise<CommandResult> {
    return await this.report(await this.debugger.breakIn(wait));
  }

  /** The target was restarted: nothing is set or loaded in it. */
  restarted(): void {
    this.debugger.targetRestarted();
    this.modules = this.modules.filter(({ loaded }) => !loaded);
  }

  /** An image came or went. */
  imageChanged(
    name: string,
    base: bigint,
    size: number,
    gone: boolean,
  ): void {
    this.modules = this.modules.filter((entry) => entry.base !== base);
    if (!gone && this.modules.length < MAX_MODULES) {
      const short = plain(name).slice(0, MAX_NAME);
      this.modules.push({ name: short, base, size, loaded: true });
    }
  }

  /** Lets the target go on without breakpoints; a target that is gone is let go. */
  async leave(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, LEAVE_TIME);
    this.debugger.detach({ timeout: LEAVE_TIME }).catch(() => {}).finally(
      resolve,
    );
    await promise;
    clearTimeout(timer);
  }
}
