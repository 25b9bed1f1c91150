fn main() { println!("weft"); }
