/** What an expression may ask for. */
export interface ExpressionScope {
  /** The value of a register; undefined if there is none such. */
  register(name: string): Promise<bigint | undefined>;
  /** The address of a symbol; undefined if there is none such. */
  symbol(name: string): bigint | undefined;
  /** An unsigned number of 1, 2, 4 or 8 bytes in memory. */
  read(address: bigint, bytes: number): Promise<bigint>;
  /** Bytes of a pointer: 4 or 8. */
  pointerBytes: number;
}

type Token =
  | { kind: "number"; value: bigint }
  | { kind: "name"; text: string }
  | { kind: "register"; text: string }
  | { kind: "operator"; text: string };

/** Binary operators, weakest first. */
const LEVELS: readonly (readonly string[])[] = [
  ["|"],
  ["^"],
  ["&"],
  ["==", "!="],
  ["<<", ">>"],
  ["+", "-"],
  ["*", "/", "%"],
];
const TOKEN =
  /\s*(?:(0n[0-9]+|0[yY][01]+|0x[0-9a-fA-F`]+|[0-9][0-9a-fA-F`]*h?(?![\w$.!]))|@([A-Za-z$]\w*)|([A-Za-z_$.?][\w$.?@!`]*)|(<<|>>|==|!=|[-+*/%&|^~()]))/y;
const MAX_DEPTH = 64;

function fail(text: string, why: string): never {
  throw new SyntaxError(`Cannot evaluate ${text}: ${why}`);
}

function parseNumber(text: string): bigint {
  const digits = text.replaceAll("`", "");
  if (/^0n/.test(digits)) return BigInt(digits.slice(2));
  if (/^0y/i.test(digits)) return BigInt(`0b${digits.slice(2)}`);
  if (/^0x/.test(digits)) return BigInt(digits);
  return BigInt(`0x${digits.replace(/h$/, "")}`);
}

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  while (/\S/.test(text.slice(TOKEN.lastIndex))) {
    const at = TOKEN.lastIndex;
    const found = TOKEN.exec(text);
    if (found === null) fail(text, `what is ${text.slice(at).trim()}`);
    const [, number, register, name, operator] = found;
    if (number) tokens.push({ kind: "number", value: parseNumber(number) });
    else if (register) tokens.push({ kind: "register", text: register });
    else if (name) tokens.push({ kind: "name", text: name });
    else tokens.push({ kind: "operator", text: operator! });
  }
  return tokens;
}

/**
 * Evaluates an expression as WinDbg's MASM evaluator does, in 64 bits: numbers are hexadecimal (`0n10` decimal,
 * `0y1` binary, `fffff800`00000000`), `@rax` a register, a name a symbol or else a register or hexadecimal
 * number, `poi`, `by`, `wo`, `dwo` and `qwo` of an address what memory holds.
 *
 * @throws {SyntaxError} If it is not understood.
 * @throws {RangeError} On a division by zero.
 */
export async function evaluate(
  text: string,
  scope: ExpressionScope,
): Promise<bigint> {
  const tokens = tokenize(text);
  let at = 0;
  let depth = 0;
  const peek = (): string | undefined => {
    const token = tokens[at];
    return token?.kind === "operator" ? token.text : undefined;
  };
  const expect = (operator: string): void => {
    if (peek() !== operator) fail(text, `${operator} is missing`);
    at++;
  };
  const cut = (value: bigint): bigint => BigInt.asUintN(64, value);

  const binary = async (level: number): Promise<bigint> => {
    const operators = LEVELS[level];
    if (operators === undefined) return await unary();
    let value = await binary(level + 1);
    for (let operator; operators.includes((operator = peek()) ?? "");) {
      at++;
      value = cut(apply(operator!, value, await binary(level + 1)));
    }
    return value;
  };
  const unary = async (): Promise<bigint> => {
    if (++depth > MAX_DEPTH) fail(text, "too deep");
    try {
      const operator = peek();
      if (operator === "-" || operator === "~" || operator === "+") {
        at++;
        const value = await unary();
        return cut(
          operator === "-" ? -value : operator === "~" ? ~value : value,
        );
      }
      return await primary();
    } finally {
      depth--;
    }
  };
  const primary = async (): Promise<bigint> => {
    const token = tokens[at++];
    if (token === undefined) fail(text, "it ends too early");
    switch (token.kind) {
      case "number":
        return cut(token.value);
      case "register":
        return await scope.register(token.text.toLowerCase()) ??
          fail(text, `no register ${token.text}`);
      case "name":
        return await named(token.text);
      case "operator": {
        if (token.text !== "(") fail(text, `${token.text} is out of place`);
        const value = await binary(0);
        expect(")");
        return value;
      }
    }
  };
  const named = async (name: string): Promise<bigint> => {
    const bytes = {
      poi: scope.pointerBytes,
      by: 1,
      wo: 2,
      dwo: 4,
      qwo: 8,
    }[name.toLowerCase()];
    if (bytes !== undefined && peek() === "(") {
      return await scope.read(await primary(), bytes);
    }
    const value = scope.symbol(name) ??
      await scope.register(name.toLowerCase());
    if (value !== undefined) return value;
    // A number such as `ffff` looks like a name.
    if (/^[0-9a-f`]+h?$/i.test(name)) return cut(parseNumber(name));
    return fail(text, `no symbol ${name}`);
  };
  const apply = (operator: string, a: bigint, b: bigint): bigint => {
    switch (operator) {
      case "+":
        return a + b;
      case "-":
        return a - b;
      case "*":
        return a * b;
      case "/":
      case "%":
        if (b === 0n) {
          throw new RangeError(`Cannot evaluate ${text}: division by zero`);
        }
        return operator === "/" ? a / b : a % b;
      case "&":
        return a & b;
      case "|":
        return a | b;
      case "^":
        return a ^ b;
      case "<<":
        return b > 63n ? 0n : a << b;
      case ">>":
        return b > 63n ? 0n : a >> b;
      case "==":
        return a === b ? 1n : 0n;
      default:
        return a === b ? 0n : 1n;
    }
  };

  const value = await binary(0);
  if (at < tokens.length) fail(text, "more follows than an expression");
  return value;
}
