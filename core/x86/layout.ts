/**
 * Where the interpreter keeps everything, as offsets in the linear memory that
 * also holds guest RAM. The headroom in front of RAM is laid out here and only here, so
 * that other tiers (generated WebAssembly) can share it with nothing to convert.
 *
 * Names ending in `_B` are byte offsets; all others are indices of 32-bit
 * words. A 64-bit value is two words, low first.
 *
 * @module
 */

// The state of the vCPU that runs now: bytes 0 to 0xFFF. ---------------------

/** 16 general registers, low and high word each: register r is at `2 * r`. */
export const GPR = 0;
/** Bytes of the general registers; an operand address below this is a register. */
export const GPR_END_B = 128;
/** Word pair that always holds 0: the base or index "none". */
export const ZERO = 32;
/** RIP: of the next instruction between blocks and in block-ending handlers. */
export const RIP = 34;
/**
 * EFLAGS. The arithmetic flags in it count only if {@linkcode CC_OP} is
 * {@linkcode Cc.Explicit}. Bit 1 is always set.
 */
export const EFLAGS = 36;
/** How the arithmetic flags follow from the next six words: a {@linkcode Cc}. */
export const CC_OP = 37;
/** First operand of the last flag-setting operation. */
export const CC_A = 38;
/** Second operand; for INC and DEC the carry flag (0 or 1) in the low word. */
export const CC_B = 40;
/** Its result. */
export const CC_R = 42;

/** Current privilege level. */
export const CPL = 44;
/** The mode key of decoded blocks: see {@linkcode Mode}. */
export const MODE = 45;
/** CR0. */
export const CR0 = 46;
/** CR4. */
export const CR4 = 47;
/** CR2, two words. */
export const CR2 = 48;
/** CR3, two words. */
export const CR3 = 50;
/** CR8: task priority, 0 to 15. */
export const CR8 = 52;
/** EFER (low word; the high word is always 0). */
export const EFER = 53;
/** RIP at the start of the block that runs, two words. */
export const BLOCK_RIP = 54;

/**
 * Segment registers, {@linkcode SEG_WORDS} words each, in the order of
 * {@linkcode Seg}: selector, base low, base high, limit, attributes.
 */
export const SEG = 64;
/** Words in a segment register. */
export const SEG_WORDS = 8;
/** Word of the selector in a segment register. */
export const SEG_SEL = 0;
/** Word of the low half of the base. */
export const SEG_BASE = 1;
/** Word of the limit: bytes, granularity applied, unsigned. */
export const SEG_LIMIT = 3;
/** Word of the attributes: see {@linkcode Attr}. */
export const SEG_ATTR = 4;

/** GDTR: base low, base high, limit. */
export const GDTR = 128;
/** IDTR: base low, base high, limit. */
export const IDTR = 132;
/** Set while an interrupt shadow (after STI, MOV SS, POP SS) covers the next instruction. */
export const SHADOW = 136;
/** Events that end the chain of blocks: see {@linkcode Event}. */
export const EVENTS = 137;
/** A set bit n: page-directory-pointer n of PAE paging is loaded; four entries follow at PDPTE. */
export const PDPTE = 138;
/** What the vCPU does: see {@linkcode Activity}. */
export const ACTIVITY = 146;
/** Debug conditions (DR6 bits) to be reported after the current instruction. */
export const PENDING_DB = 147;
/** DR0 to DR3, two words each. */
export const DR = 148;
/** DR6. */
export const DR6 = 156;
/** DR7. */
export const DR7 = 157;
/** The {@linkcode ACTIVITY} that goes on when the host has looked at a debug event. */
export const RESUME_ACTIVITY = 158;

/** The CPU's own MSRs, two words each; indices are relative to this. */
export const MSR = 160;
/** IA32_SYSENTER_CS. */
export const MSR_SYSENTER_CS = MSR;
/** IA32_SYSENTER_ESP. */
export const MSR_SYSENTER_ESP = MSR + 2;
/** IA32_SYSENTER_EIP. */
export const MSR_SYSENTER_EIP = MSR + 4;
/** IA32_STAR. */
export const MSR_STAR = MSR + 6;
/** IA32_LSTAR. */
export const MSR_LSTAR = MSR + 8;
/** IA32_CSTAR. */
export const MSR_CSTAR = MSR + 10;
/** IA32_FMASK. */
export const MSR_FMASK = MSR + 12;
/** IA32_KERNEL_GS_BASE. */
export const MSR_KERNEL_GS_BASE = MSR + 14;
/** IA32_TSC_AUX. */
export const MSR_TSC_AUX = MSR + 16;
/** Added to the clock to give the TSC. */
export const TSC_OFFSET = MSR + 18;
/** IA32_PAT. */
export const MSR_PAT = MSR + 20;
/** IA32_APIC_BASE. */
export const MSR_APIC_BASE = MSR + 22;
/** IA32_MISC_ENABLE. */
export const MSR_MISC_ENABLE = MSR + 24;
/** IA32_MTRR_DEF_TYPE. */
export const MSR_MTRR_DEF_TYPE = MSR + 26;
/** MTRR fixed ranges (11) and variable pairs (8). */
export const MSR_MTRR = MSR + 28;
/** XCR0. */
export const XCR0 = MSR + 28 + 2 * 27;
/** IA32_SPEC_CTRL and others that are stored only. */
export const MSR_SPEC_CTRL = XCR0 + 2;
/** IA32_XSS. */
export const MSR_XSS = XCR0 + 4;

/** Vector registers, byte offset: 16 of 16 bytes (XMM), then their 16 upper halves. */
export const VEC_B = 0x500;
/** MXCSR. */
export const MXCSR = 0x700 >> 2;
/**
 * x87 registers, byte offset: 8 physical ones of 16 bytes, the significand's 8 first (the MMX register of
 * the same number), then sign and exponent in 2.
 */
export const X87_B = 0x740;
/** x87 control word. */
export const FCW = (X87_B + 128) >> 2;
/** x87 status word, the top of the stack in it. */
export const FSW = FCW + 1;
/** A set bit n: physical x87 register n is not empty. */
export const FTW = FCW + 2;
/** Low 11 bits of the last x87 instruction's opcode: 3 of the first byte, then ModRM. */
export const FOP = FCW + 3;
/** Offset of the last x87 instruction, two words. */
export const FIP = FCW + 4;
/** Offset of the last x87 operand in memory, two words. */
export const FDP = FCW + 6;
/** Selectors that go with these offsets. */
export const FCS = FCW + 8;
/** Data selector. */
export const FDS = FCW + 9;
/** End of the state of one vCPU; this many bytes are swapped between vCPUs. */
export const STATE_BYTES = 0x1000;

// The engine's own, the same for all vCPUs. -----------------------------------

/** Effective address of the current operand: segment base applied, two words. */
export const EA = 0x400;
/** High word of a 64-bit result that a function returns the low word of. */
export const HIGH = 0x402;
/** Vector, error code, and whether there is one, of the fault being thrown. */
export const FAULT_VECTOR = 0x403;
/** Error code of the fault. */
export const FAULT_ERROR = 0x404;
/** Whether the fault pushes an error code. */
export const FAULT_HAS_ERROR = 0x405;
/** TLB generation, 1 to 4095: the low 12 bits of every valid tag. */
export const TLB_GEN = 0x406;
/** Word index of the read TLB in force (depends on CPL, SMAP, alignment checks). */
export const TLB_R = 0x407;
/** Word index of the write TLB in force. */
export const TLB_W = 0x408;
/** Word index of the fetch TLB in force. */
export const TLB_X = 0x409;
/** Generation of all decoded code: links between blocks made under another one are void. */
export const CODE_GEN = 0x40a;
/** Bytes of a store that {@linkcode commit} of access.ts has to finish, else 0. */
export const COMMIT_SIZE = 0x40b;
/** How many of those bytes are in the first of its two pages. */
export const COMMIT_FIRST = 0x40c;
/** Guest-physical address of the first and of the second part, two words each. */
export const COMMIT_GPA = 0x40e;
/** Guest-physical address that the last walk found, two words. */
export const WALK_GPA = 0x414;
/** Copy of the first {@linkcode SAVED_WORDS} words, for going back when an event cannot be delivered. */
export const SAVED = 0x480;
/** Words in that copy: everything up to the descriptor tables. */
export const SAVED_WORDS = 137;
/** Scratch operand of 64 bytes for accesses that are not one run of RAM. */
export const SCRATCH_B = 0x1600;
/** Second scratch, for handlers that need an operand of their own. */
export const TEMP_B = 0x1680;

/** Third scratch of 64 bytes: results of VEX-encoded instructions before they go to a register. */
export const VEX_B = 0x16c0;

/** Entries in one TLB. */
export const TLB_ENTRIES = 2048;
/** Words in a TLB entry: tag (page | generation), high word, host minus linear, unused. */
export const TLB_ENTRY_WORDS = 4;
/** Words of one TLB. */
export const TLB_WORDS = TLB_ENTRIES * TLB_ENTRY_WORDS;
/**
 * The TLBs: for each {@linkcode TlbSet} one for reads, one for writes, one for
 * fetches, each direct mapped by the page number's low bits.
 */
export const TLB = 0x10000 >> 2;
/** Words of a set of three TLBs. */
export const TLB_SET_WORDS = 3 * TLB_WORDS;

/** Entries in the table of decoded blocks. */
export const BLOCKS = 0x10000;
/** Block table, 4 words an entry: guest-physical address, mode key, first record, page generation. */
export const BLOCK_TABLE = 0x100000 >> 2;

/** Decoded instructions, {@linkcode REC_WORDS} words each. */
export const ARENA = 0x200000 >> 2;
/** First word after the arena. */
export const ARENA_END = 0x1400000 >> 2;
/** Words in a decoded instruction. */
export const REC_WORDS = 8;
/**
 * Per page of RAM, two words: which of its 64 chunks of 64 bytes hold decoded code.
 */
export const CODE_MAP = 0x1400000 >> 2;
/** Per page of RAM, one word: how often its code was dropped. */
export const PAGE_GEN = 0x1800000 >> 2;
/** Bytes in front of guest-physical address 0. */
export const HEADROOM = 0x2000000;
/** Most RAM that the interpreter's 31-bit host addresses reach. */
export const MAX_RAM = 0x7000_0000;

/** Words of a block's header, in front of its first instruction. */
export const HEADER_WORDS = 8;
/** Bytes of code in the block. */
export const H_LENGTH = -8;
/** Guest-physical address of the second page if the only instruction straddles two, else -1. */
export const H_SECOND = -7;
/** {@linkcode PAGE_GEN} of that page. */
export const H_SECOND_GEN = -6;

// Fields of a decoded instruction, in words from its start. ---------------------

/** Handler number. */
export const R_OP = 0;
/** Bits, see {@linkcode Meta}. */
export const R_META = 1;
/** Byte address of operand A if it is not in memory. */
export const R_A = 2;
/** Byte address of operand B if it is not in memory. */
export const R_B = 3;
/** Immediate, two words; branch target relative to the start of the block. */
export const R_IMM = 4;
/** How to compute the effective address, see {@linkcode Mem}; branches: linked block. */
export const R_MEM = 6;
/** Displacement, sign-extended; branches: {@linkcode CODE_GEN} of the link. */
export const R_DISP = 7;

/** Bits of {@linkcode R_META}. */
export const Meta = {
  /** Offset of the instruction from the start of its block. */
  OffsetMask: 0x1fff,
  /** Shift of its length in bytes (1 to 15). */
  LengthShift: 13,
  LengthMask: 15,
  /** One operand is in memory and translated before the handler runs. */
  Memory: 1 << 17,
  /** That operand is written (or read and written). */
  Write: 1 << 18,
  /** It is operand A; else B. */
  MemoryIsA: 1 << 19,
  /** Shift of its size in bytes less 1. */
  SizeShift: 20,
  SizeMask: 63,
  /** The instruction ends its block; the next one is at RIP. */
  Ends: 1 << 26,
  /** Of a branch: its target is in the page of the block, so blocks may be linked. */
  Linkable: 1 << 27,
  /** F3 prefix. */
  Rep: 1 << 28,
  /** F2 prefix. */
  Repne: 1 << 29,
  /** The written operand is read as well. */
  Modify: 1 << 30,
  /** The memory operand must be aligned to 16 bytes; the sign, so that looking is cheap. */
  Aligned: 1 << 31,
} as const;

/** Bits of {@linkcode R_MEM}. */
export const Mem = {
  /** Word index of the base register ({@linkcode ZERO} for none). */
  BaseMask: 127,
  /** Shift of the word index of the index register. */
  IndexShift: 7,
  ScaleShift: 14,
  KindShift: 16,
  KindMask: 15,
  SegShift: 20,
  SegMask: 7,
  /** Shift of the address size: 0 = 16, 1 = 32, 2 = 64 bits. */
  SizeShift: 23,
} as const;

/** Kinds of effective address, the cheap ones first. */
export const MemKind = {
  /** 64-bit, base and displacement, segment base 0. RIP-relative is this with base {@linkcode BLOCK_RIP}. */
  Base64: 0,
  /** 64-bit, base, index and displacement, segment base 0. */
  Index64: 1,
  /** 32-bit, flat segment. */
  Flat32: 2,
  /** Anything: segment base, limit and rights are looked at. */
  General: 3,
  /** As General, with the offset in R_IMM and R_IMM + 1 (MOV with a direct offset). */
  Direct: 4,
} as const;

/** Segment register numbers; the first six as instructions encode them. */
export const Seg = {
  ES: 0,
  CS: 1,
  SS: 2,
  DS: 3,
  FS: 4,
  GS: 5,
  LDTR: 6,
  TR: 7,
} as const;

/** Segment attributes, in the bit positions of VMX access rights (SDM volume 3C, 25.4.1). */
export const Attr = {
  TypeMask: 15,
  /** Of data: accessed; of code: accessed. */
  Accessed: 1,
  /** Of data: writable; of code: readable. */
  Writable: 2,
  /** Of data: expand-down; of code: conforming. */
  ExpandDown: 4,
  Conforming: 4,
  Code: 8,
  /** Code or data, not a system segment. */
  S: 16,
  DplShift: 5,
  Present: 128,
  Avl: 1 << 12,
  L: 1 << 13,
  Db: 1 << 14,
  G: 1 << 15,
  Unusable: 1 << 16,
} as const;

/** Bits of {@linkcode MODE}. Blocks decoded under one value are used only under it. */
export const Mode = {
  /** CS.D: 32-bit operands and addresses by default. */
  Code32: 1,
  /** 64-bit mode. */
  Long: 2,
  /** DS, ES and SS are flat, readable and writable. */
  FlatData: 4,
  /** CS is flat. */
  FlatCode: 8,
  /** Protected mode (V86 included). */
  Protected: 16,
  /** Virtual-8086 mode. */
  V86: 32,
  /** SS.B: 32-bit stack pointer (outside 64-bit mode). */
  Stack32: 64,
  /** One instruction a block: trap flag, debug registers or an interrupt shadow. */
  Single: 128,
  /** EFER.LMA. */
  LongActive: 256,
  /** Instructions on MMX registers run: neither CR0.EM nor CR0.TS is set. */
  Mmx: 512,
  /** Those on XMM registers run: CR4.OSFXSR is set as well. */
  Sse: 1024,
  /**
   * VEX-encoded ones run: protected mode, CR4.OSXSAVE, SSE and AVX state in XCR0, not CR0.TS.
   */
  Avx: 2048,
} as const;

/** How to compute arithmetic flags from operands and result. */
export const Cc = {
  /** They are in EFLAGS. */
  Explicit: 0,
  /** 8, 16 and 32-bit: operands and result sign-extended in the low words, high words unused. */
  Add32: 1,
  Sub32: 2,
  Logic32: 3,
  Inc32: 4,
  Dec32: 5,
  /** 64-bit. */
  Add64: 6,
  Sub64: 7,
  Logic64: 8,
  Inc64: 9,
  Dec64: 10,
} as const;

/** Bits of {@linkcode EVENTS}. */
export const Event = {
  /** The INTR line is asserted. */
  Interrupt: 1,
  /** An NMI waits. */
  Nmi: 2,
  /** Leave the run loop: somebody kicked, or the slice is over. */
  Kick: 4,
  /** The vCPU is not running (halted, shut down, waiting for SIPI). */
  Stopped: 8,
  /** An NMI is being handled: further ones wait for IRET. */
  NmiBlocked: 16,
  /** Debug conditions wait to be delivered, or the trap flag is in force. */
  Debug: 32,
  /** Code in use may have changed: go on with a fresh look at the block table. */
  LeaveBlock: 64,
} as const;

/** Values of {@linkcode ACTIVITY}. */
export const Activity = {
  Running: 0,
  Halted: 1,
  Shutdown: 2,
  /** Stopped by a debug event of the host. */
  GuestDebug: 3,
} as const;

/** Sets of TLBs, by who accesses. */
export const TlbSet = {
  /** CPL 0 to 2, and implicit supervisor accesses. */
  Supervisor: 0,
  /** Supervisor with EFLAGS.AC while SMAP is on: user pages are allowed. */
  SupervisorAc: 1,
  /** CPL 3. */
  User: 2,
  /** Never filled: every access takes the slow path (alignment checks). */
  None: 3,
} as const;

/** Arithmetic flags. */
export const Flag = {
  CF: 1,
  PF: 4,
  AF: 16,
  ZF: 64,
  SF: 128,
  TF: 256,
  IF: 512,
  DF: 1024,
  OF: 2048,
  IOPL: 0x3000,
  NT: 0x4000,
  RF: 0x10000,
  VM: 0x20000,
  AC: 0x40000,
  VIF: 0x80000,
  VIP: 0x100000,
  ID: 0x200000,
  /** CF, PF, AF, ZF, SF and OF. */
  Arithmetic: 0x8d5,
} as const;
