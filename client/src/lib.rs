//! The library that services use: put, get, delete, list, and operators' calls
