/**
 * As much of IAM's evaluation as the policies here use: allow statements, wildcards, and the operators below. A key that a call does
 * not have makes a condition false, as IAM has it, unless its operator ends with IfExists.
 */
export interface PolicyStatement {
  readonly Effect: string
  readonly Action: string | readonly string[]
  readonly Resource: string | readonly string[]
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>
}

/** One resource of a call; a call with several is allowed when each of them is. */
export interface AskedFor {
  readonly action: string
  readonly resource: string
  readonly context: Readonly<Record<string, string>>
}

const all = (value: string | readonly string[]): readonly string[] => (typeof value === 'string' ? [value] : value)

const fits = (pattern: string, text: string): boolean =>
  new RegExp(
    `^${pattern
      .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.')}$`,
  ).test(text)

const operators: Readonly<Record<string, (desired: string, has: string) => boolean>> = {
  StringEquals: (desired, has) => desired === has,
  StringLike: fits,
  ArnLike: fits,
  ArnEquals: fits,
}

export function isAllowed(statements: readonly PolicyStatement[], asked: AskedFor): boolean {
  return statements.some(
    ({ Effect, Action, Resource, Condition = {} }) =>
      Effect === 'Allow' &&
      all(Action).some(pattern => fits(pattern, asked.action)) &&
      all(Resource).some(pattern => fits(pattern, asked.resource)) &&
      Object.entries(Condition).every(([operator, keys]) =>
        Object.entries(keys).every(([key, desired]) => holds(operator, all(desired), asked.context[key])),
      ),
  )
}

function holds(operator: string, desired: readonly string[], has: string | undefined): boolean {
  if (operator === 'Null') return desired.includes(String(has === undefined))
  const isOptional = operator.endsWith('IfExists')
  const compare = operators[operator.replace(/IfExists$/, '')]
  if (compare === undefined) throw new Error(`an operator that is not known here: ${operator}`)
  if (has === undefined) return isOptional
  return desired.some(one => compare(one, has))
}
