/** Reads a CloudFormation template: its text for rules about lines, its nodes for rules about YAML, its values for all else. */
import { type Document, parseDocument, type Scalar, type ScalarTag, type YAMLMap, type YAMLSeq } from 'yaml'

/** A short-form function as the object that CloudFormation makes of it: `!Ref x` is `{ Ref: 'x' }`. */
export type Value = string | number | boolean | null | readonly Value[] | { readonly [key: string]: Value }
export type Mapping = { readonly [key: string]: Value }

export interface Template {
  readonly text: string
  readonly lines: readonly string[]
  readonly document: Document.Parsed
  readonly sections: { readonly [name: string]: Mapping }
}

const shortForms =
  'And Base64 Cidr Condition Equals FindInMap GetAZs GetAtt If ImportValue Join Not Or Ref Select Split Sub'

/** `Ref` and `Condition` are no functions by their long names. */
const longName = (name: string): string => (name === 'Ref' || name === 'Condition' ? name : `Fn::${name}`)

const tags = shortForms.split(' ').flatMap(name => [
  { tag: `!${name}`, resolve: (text: string) => ({ [longName(name)]: text }) },
  {
    tag: `!${name}`,
    collection: 'seq' as const,
    resolve: (items: YAMLSeq | YAMLMap) => ({ [longName(name)]: items.toJSON() }),
  },
]) as unknown as ScalarTag[]

/** @throws Error when it is no YAML as CloudFormation takes it, with duplicate keys for example */
export function readTemplate(text: string): Template {
  // Twice: as nodes that keep the tags, and as values.
  const document = parseDocument(text, { version: '1.1', keepSourceTokens: true, logLevel: 'silent' })
  const values = parseDocument(text, { version: '1.1', customTags: known => [...withoutTimes(known), ...tags] })
  const [error] = [...document.errors, ...values.errors, ...values.warnings]
  if (error !== undefined) throw error
  return { text, lines: text.split('\n'), document, sections: values.toJS() }
}

/** A version such as 2010-09-09 stays the text that it is. */
const withoutTimes = (known: readonly unknown[]): ScalarTag[] =>
  known.filter(tag => !(tag as ScalarTag).tag?.endsWith(':timestamp')) as ScalarTag[]

/** Every value inside of a value, with the keys that lead to it. */
export function* walk(
  value: Value,
  path: readonly string[] = [],
): Generator<{ value: Value; path: readonly string[] }> {
  yield { value, path }
  if (typeof value !== 'object' || value === null) return
  for (const [key, inner] of Object.entries(value)) yield* walk(inner, [...path, key])
}

export interface Resource extends Mapping {
  readonly Type: string
  readonly Properties: Mapping
}

export const resourcesOf = ({ sections }: Template): [string, Resource][] =>
  Object.entries(sections.Resources ?? {}) as [string, Resource][]

export type QuotedScalar = Scalar<string> & { readonly type: 'QUOTE_SINGLE' | 'QUOTE_DOUBLE' }
